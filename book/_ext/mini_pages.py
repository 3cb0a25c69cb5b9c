"""Parts of the page on mini-VisA: its sheets, how hard its objects are, and real fryum beside the rendered one."""

from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import sheets

from visa.data.dataset import load_images
from visa.data.objects import OBJECTS
from visa.data.source import Source, open_source
from visa.mini import MODULES, render
from visa.paths import visa_root
from visa.report import tables

SIDE, BESIDE = 220, 6  # pixels of a picture, pictures a row
SHEET = """### {name}

:::{{figure}} generated/sheets/{id}.webp
:alt: Rendered {name}: two normal images and one of each defect class, with the outline of its mask.

Mini-VisA's `{id}`: normal, and each class as it is and with its mask's outline. Rendered, not photographed.
:::
"""
NO_FILE = """:::{{note}}
No figures are stored in this copy of the book: `python benchmarks/{script}.py` makes them.
:::
"""
MEASURES = {  # (setup, detector, level, metric) to its heading
    ("1cls", "padim", "image", "auroc"): "PaDiM, image AU-ROC",
    ("1cls", "patchcore", "image", "auroc"): "PatchCore, image AU-ROC",
    ("1cls", "padim", "pixel", "ap"): "PaDiM, pixel AP",
    ("1cls", "patchcore", "pixel", "ap"): "PatchCore, pixel AP",
    ("2cls_10shot", "probe", "image", "auroc"): "10-shot probe, image AU-ROC",
}
REAL = ("methods_fryum", "fryum")  # folders of results on real fryum; the first that has a pre-training counts
CORRELATION = "Spearman's ρ"
BOTH = """:::{figure} generated/sheets/real_fryum.webp
:alt: Two rows of photographed fryums from VisA above two rows of rendered ones, half of them defective.

VisA's `fryum` above, mini-VisA's below; the left half of each row is normal. Made on your machine from your VisA.
:::
"""
NO_REAL = """:::{note}
This copy of the book was built without VisA.
Where `VISA_ROOT` names it, photographs of the real object stand here beside the rendered ones.
:::
"""


def fragments(results: Path) -> dict[str, str]:
    """File name to text; writes no picture."""
    return {
        "mini_sheets.md": "\n".join(SHEET.format(name=_title(name), id=name) for name in MODULES),
        "mini_difficulty.md": _difficulty(results / "difficulty.csv"),
        "mini_order.md": _order(results),
        "mini_real_fryum.md": BOTH if _real_fryum() else NO_REAL,
    }


def write_pictures(folder: Path) -> None:
    """The contact sheets, and, where real fryum is at hand, the two side by side."""
    sheets.write_sheets(folder)
    if source := _real_fryum():
        real = [_photographs(source, label) for label in ("normal", "anomaly")]
        drawn = [_rendered(kind) for kind in ("Normal", "Anomaly")]
        rows = [np.concatenate([pair[0][k : k + 3], pair[1][k : k + 3]]) for pair in (real, drawn) for k in (0, 3)]
        whole = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        PIL.Image.fromarray(whole).save(folder / "real_fryum.webp", quality=85)


def _title(name: str) -> str:
    return OBJECTS[name].name if name in OBJECTS else name


def _difficulty(file: Path) -> str:
    """The better detector's image AU-ROC, mean and standard deviation over seeds, objects x weights."""
    if not file.is_file():
        return NO_FILE.format(script="difficulty")
    rows = pd.read_csv(file)
    best = rows.groupby(["object", "arch", "weights", "seed"], as_index=False)["auroc"].max()
    groups = best.groupby(["object", "arch", "weights"])["auroc"]
    cells = groups.agg(n="count", mean="mean", sd="std").assign(sd_draws=np.nan)
    text = cells.apply(tables.mean_sd, axis=1).unstack(["arch", "weights"])
    text = text.reindex([name for name in MODULES if name in text.index]).rename_axis("object")
    text.columns = [f"{arch.rpartition('/')[2]}, {weights}" for arch, weights in text.columns]
    return tables.to_markdown(text.reset_index())


def _order(results: Path) -> str:
    """Means of pre-trainings on real and on rendered fryum side by side, and how far their orders agree."""
    if not (results / "fryum.csv").is_file():
        return NO_FILE.format(script="method_order")
    drawn = _means(results / "fryum.csv")
    real = pd.concat([_means(results.parent / folder / "metrics.csv") for folder in REAL])
    real = real[~real.index.duplicated()].reindex(drawn.index)
    cells = real.map("{:.3f}".format) + " / " + drawn.map("{:.3f}".format)
    cells.loc[CORRELATION] = {name: f"{rank_correlation(real[name], drawn[name]):.2f}" for name in drawn}
    return tables.to_markdown(cells.rename_axis("pre-training").reset_index())


def rank_correlation(first: "pd.Series[float]", second: "pd.Series[float]") -> float:
    """Spearman's: Pearson's of the ranks, ties sharing theirs."""
    return float(first.rank().corr(second.rank()))


def _means(file: Path) -> pd.DataFrame:
    """Means over seeds, of each over its draws: pre-trainings x MEASURES."""
    rows = pd.read_csv(file)
    if "defect" in rows:
        rows = rows[rows["defect"].isna()]
    keys = ["setup", "detector", "level", "metric"]
    means = rows.groupby(["pretraining", "seed", *keys])["value"].mean().groupby(["pretraining", *keys]).mean()
    return means.unstack(keys)[list(MEASURES)].set_axis(list(MEASURES.values()), axis=1)


def _real_fryum() -> Source | None:
    if visa_root() is None:
        return None
    source = open_source()
    return source if not source.synthetic and "fryum" in source.objects else None


def _photographs(source: Source, label: str) -> sheets.Picture:
    """The middle of the photographs, which are half as wide again as they are high."""
    chosen = source.samples("1cls", "fryum", "test", label)[:BESIDE]
    wide = load_images(source.root, chosen, (SIDE, 3 * SIDE // 2))[..., SIDE // 4 : SIDE // 4 + SIDE]
    return np.asarray(wide.permute(0, 2, 3, 1), np.uint8)


def _rendered(kind: str) -> sheets.Picture:
    return np.stack([render("fryum", kind, k, size=SIDE)[0] for k in range(BESIDE)])
