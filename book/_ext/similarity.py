"""What features see before and after SPD: a figure and a table, from benchmarks/similarity.py's file."""

from pathlib import Path

import matplotlib as mpl
import measured
import pandas as pd
import result_files
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from visa.report import figures, tables

COMMAND = "python benchmarks/similarity.py"
SHOWN = (0.005, 0.02, 0.08)  # areas in the table
ALT = (
    "Cosine of an image's features with those of its blended copy, falling as the patch grows from 0.25 to 32 % of the "
    "image: highest for SimSiam, lower for random weights, lowest for SimSiam with SPD up to a few percent"
)
CAPTION = (
    "Cosine of an image's pooled, centred features with those of its SmoothBlend-ed copy, against the size of the "
    "patch; a line a seed. Dotted: with those of a weak view of it, a harmless global change. {made}"
)


def similarity(folder: Path) -> dict[str, str]:
    """The figure and its table; a note where there is no file."""
    file = folder / "similarity.csv"
    if not file.is_file():
        return {"similarity.md": measured.NO_RUN.format(what="similarities of features", command=COMMAND)}
    rows = pd.read_csv(file)
    with mpl.rc_context():
        figures.use_style()
        caption = CAPTION.format(made=result_files.origin(folder, COMMAND))
        name, svg, text = measured._drawn("similarity.svg", _lines(rows), ALT, caption)
    return {"similarity.md": text + "\n" + _table(folder), name: svg}


def _lines(rows: pd.DataFrame) -> Figure:
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    for i, (name, part) in enumerate(rows.groupby("pretraining", sort=False)):
        colour, marker = figures.PALETTE[i], figures.MARKERS[i]
        for _, seed in part[part["change"] == "SmoothBlend"].groupby("seed"):
            axis.plot(100 * seed["area"], seed["cosine"], color=colour, marker=marker, ms=4, lw=1.2, label=name)
        weak = part.loc[part["change"] == "weak view", "cosine"].mean()
        axis.axhline(weak, color=colour, ls=":", lw=1.2)
    axis.set(xscale="log", xlabel="patch, % of the image", ylabel="cosine with the unchanged image", ylim=(0, 1.02))
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16, 32]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    figures.legend_once(figure, [axis])
    return figure


def _table(folder: Path) -> str:
    """Mean and spread over seeds, a line a network."""
    long = result_files.long_table(folder)
    chosen = {f"SmoothBlend {area:g}": f"patch of {100 * area:g} %" for area in SHOWN} | {"weak view 0": "weak view"}
    long = long[long["measure"].isin(list(chosen))]
    summary = tables.summary_table(long.rename(columns={"measure": "metric"}), ["variant", "metric"])
    cells = summary.assign(cell=[tables.mean_sd(line) for _, line in summary.iterrows()])
    wide = cells.pivot(index="variant", columns="metric", values="cell")
    wide = wide.loc[list(dict.fromkeys(summary["variant"])), list(chosen)].rename(columns=chosen)
    return tables.to_markdown(wide.reset_index(names="network"))
