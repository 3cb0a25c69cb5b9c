"""Parts of the pages on metrics, from their result files: conventions, speed against peers, growth."""

from pathlib import Path

import matplotlib as mpl
import measured
import pandas as pd
import result_files
from matplotlib import pyplot as plt

from visa.report import figures, tables

TOPICS = {  # of conventions.csv, to the file of its table
    "AU-PR": "au_pr",
    "AU-ROC": "au_roc",
    "stored scores": "stored",
    "images": "images",
    "size": "size",
    "AU-PRO up to": "limit",
    "smoothing": "smoothing",
    "F1, threshold chosen": "f1",
}
FIGURES = {"auroc": "AU-ROC", "au_pr": "AU-PR", "ap": "AP", "au_pro": "AU-PRO", "f1": "F1", "regions": "regions"}
NO_FILES = """:::{{note}}
No {what} are stored in this copy of the book: `python benchmarks/{script}` makes them.
:::
"""
PARTS = {
    "exact": "`pixel_metrics`, all figures, exact",
    "one_pass": "`PixelMetrics`, all figures, one pass",
    "reference": "sweep of 202 thresholds, as the authors' tool does",
    "scikit_learn": "scikit-learn, AU-ROC and AP",
    "anomalib": "anomalib, AU-PRO alone",
    "adeval": "adeval, AU-ROC, AU-PR and AU-PRO, 1,000 bins",
}


def conventions(folder: Path) -> dict[str, str]:
    """A table a topic."""
    file = folder / "conventions.csv"
    if not file.is_file():
        note = NO_FILES.format(what="conventions", script="metric_conventions.py")
        return {f"conventions_{slug}.md": note for slug in (*TOPICS.values(), "provenance")}
    rows = pd.read_csv(file)
    made = {f"conventions_{slug}.md": _topic(rows[rows["topic"] == topic]) for topic, slug in TOPICS.items()}
    record = (folder / "provenance.json").read_text(encoding="utf-8").strip()
    folded = measured.FOLDED.format(title="provenance.json", text=f"```json\n{record}\n```")
    return made | {"conventions_provenance.md": folded}


def speed(file: Path) -> dict[str, str]:
    """The table of benchmarks/metrics.py."""
    if not file.is_file():
        return {"metrics_speed.md": NO_FILES.format(what="times", script="metrics.py")}
    rows = pd.read_csv(file)
    table = pd.DataFrame(
        {
            "size": rows["size"],
            "what": rows["part"].map(PARTS),
            "CPU seconds": rows["cpu_seconds"].map("{:.3g}".format),
            "times ours": rows["ratio"].map("{:.1f}".format),
            "memory, in inputs": rows["memory_of_inputs"].map("{:.2f}".format),
        }
    )
    return {"metrics_speed.md": tables.to_markdown(table)}


def growth(folder: Path) -> dict[str, str]:
    """CPU seconds and peak memory against pixels, a line a computation, from every CSV in `folder`."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        return {"growth.md": NO_FILES.format(what="measurements of growth", script="growth.py")}
    rows = pd.concat([pd.read_csv(file) for file in files])
    with mpl.rc_context():
        figures.use_style()
        alt = "CPU seconds and peak memory against the number of pixels, on logarithmic axes"
        made = result_files.origin(folder, "python benchmarks/growth.py")
        caption = (
            "CPU seconds (one thread) and peak memory on top of the imports and of a small first call, which loads "
            f"compiled loops, against the pixels that are read. {made}"
        )
        file, svg, text = measured._drawn("growth.svg", _lines(rows), alt, caption)
    return {"growth.md": text, file: svg}


def _lines(rows: pd.DataFrame) -> mpl.figure.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    for i, (what, part) in enumerate(rows.groupby("what", sort=False)):
        ordered = part.sort_values("pixels")
        for axis, values in zip(axes, (ordered["cpu_seconds"], ordered["peak_bytes"] / 2**20), strict=True):
            axis.plot(ordered["pixels"], values, marker=figures.MARKERS[i % len(figures.MARKERS)], label=what)
    for axis, label in zip(axes, ("CPU seconds", "peak memory, MiB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="pixels", ylabel=label)
    axes[0].legend()
    return figure


def _topic(rows: pd.DataFrame) -> str:
    """A column a detector or, of several figures, a column a figure and a line a detector and convention."""
    cells = [f"{v:.0f}" if f == "regions" else f"{v:.4f}" for v, f in zip(rows["value"], rows["figure"], strict=True)]
    rows = rows.assign(cell=cells, figure=rows["figure"].map(FIGURES))
    if rows["figure"].nunique() == 1:
        lines, columns = ["convention"], "detector"
    else:
        lines, columns = ["detector", "convention"], "figure"
    wide = rows.pivot(index=lines, columns=columns, values="cell")
    order = list(dict.fromkeys(rows[lines].itertuples(index=False, name=None)))
    wide = wide.reindex([line[0] for line in order] if len(lines) == 1 else order)
    return tables.to_markdown(wide[list(dict.fromkeys(rows[columns]))].reset_index())
