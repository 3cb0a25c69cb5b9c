"""The comparisons that book/protocol.md settles: outcomes, each arm's control, differences, and what may be said."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from visa.errors import VisaError
from visa.report.tables import paired_difference

OUTCOMES = {  # set-up, detector and level: all are of AU-PR, the paper's primary metric
    "probe, 5-shot": ("2cls_5shot", "probe", "image"),
    "probe, 10-shot": ("2cls_10shot", "probe", "image"),
    "probe, high-shot": ("2cls_highshot", "probe", "image"),
    "PatchCore, image": ("1cls", "patchcore", "image"),
    "PatchCore, pixel": ("1cls", "patchcore", "pixel"),
    "PaDiM, image": ("1cls", "padim", "image"),
    "PaDiM, pixel": ("1cls", "padim", "pixel"),
    "classifier, 10-shot": ("2cls_10shot", "classifier", "image"),
    "classifier, high-shot": ("2cls_highshot", "classifier", "image"),
    "U-Net, 10-shot": ("2cls_10shot", "unet", "pixel"),
    "U-Net, high-shot": ("2cls_highshot", "unet", "pixel"),
}
CONTROLS = {  # an arm to the one that differs from it in one thing alone
    "SPD classifier": "given",
    "hard edge": "SPD classifier",
    "SimSiam": "given",
    "SimSiam + SPD": "SimSiam",
    "supervised": "given",
    "supervised + SPD": "supervised",
}
PRIMARY = (("SPD classifier", "probe, 10-shot"), ("SimSiam + SPD", "probe, 10-shot"))  # arms and outcomes


def differences(metrics: pd.DataFrame) -> pd.DataFrame:
    """Subtract from the AU-PR of each arm its control's, paired by seed and draw: a row an object, arm and outcome.

    Columns are those of `paired_difference`, with the 95 % interval, and `arm`, `control`, `outcome`, and `p` over
    seeds. The given weights, measured once, are the control of every seed. Raises VisaError if no arm has its control.
    """
    metrics = with_outcome(metrics)
    given, seeds = metrics[metrics["pretraining"] == "given"], sorted(set(metrics["seed"]))
    metrics = pd.concat([metrics[metrics["pretraining"] != "given"], *(given.assign(seed=seed) for seed in seeds)])
    measured = set(metrics["pretraining"])
    parts = [
        paired_difference(metrics, arm, control).assign(arm=arm, control=control)
        for arm, control in CONTROLS.items()
        if {arm, control} <= measured
    ]
    if not parts:
        raise VisaError("no arm of the protocol is measured beside its control: measure both.")
    table = with_outcome(pd.concat(parts, ignore_index=True))
    error = table["sd"] / table["n"] ** 0.5
    p = 2 * stats.t.sf((table["mean"] / error).abs(), table["n"] - 1)
    return table.assign(p=np.where(table["n"] > 1, p, np.nan))


def with_outcome(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are an outcome of the protocol, named in the column `outcome`."""
    names = {(*key, "au_pr"): name for name, key in OUTCOMES.items()}
    keys = metrics[["setup", "detector", "level", "metric"]].itertuples(index=False, name=None)
    named = metrics.assign(outcome=[names.get(key) for key in keys])
    return named[named["outcome"].notna()]


def points(line: "pd.Series[float]") -> str:
    """Write a row of `differences` in points as `mean [low, high]`, with signs."""
    mean, low, high = (f"{100 * line[name]:+.1f}".replace("-", "−") for name in ("mean", "low", "high"))
    return mean if np.isnan(line["low"]) else f"{mean} [{low}, {high}]"


def differences_table(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the `differences` of one object out: outcomes down, arms across, bold where the interval is without 0."""
    cells = [f"**{points(line)}**" if line["low"] * line["high"] > 0 else points(line) for _, line in table.iterrows()]
    table = table.assign(compared=table["arm"] + " − " + table["control"], cell=cells)
    wide = table.pivot(index="outcome", columns="compared", values="cell")
    wide = wide.reindex([name for name in OUTCOMES if name in wide.index])[list(table["compared"].unique())]
    return wide.rename_axis(columns=None).reset_index()


def sentences(table: pd.DataFrame, facts: pd.DataFrame) -> Iterator[str]:
    """One sentence a primary comparison of an object: supported, refuted or not decided, by Holm's correction.

    facts: columns `object`, `pretraining` and `learned`, a row an arm and seed.
    """
    for object, of_object in table.groupby("object", sort=False):
        rows = {(line["arm"], line["outcome"]): line for _, line in of_object.iterrows()}
        measured = [rows[key] for key in PRIMARY if key in rows]
        for arm, outcome in (key for key in PRIMARY if key not in rows):
            yield f"{object}: whether {arm} helps is not measured ({outcome}): too few images, or no such arm."
        ordered = sorted(_p(line) for line in measured)
        for line in measured:
            rank = ordered.index(_p(line))
            held = all(p * (len(ordered) - i) < 0.05 for i, p in enumerate(ordered[: rank + 1]))
            verdict = "not decided" if not held else "supported" if line["mean"] > 0 else "refuted"
            of_arm = (facts["object"] == object) & (facts["pretraining"] == line["arm"])
            learned = facts.loc[of_arm, "learned"].astype(float)
            told = f"{int(learned.sum())} of {len(learned)} trainings learned"
            if learned.mean() < 0.5:
                told += ", so that this says nothing of SPD"
            claim = f"{line['arm']} helps against {line['control']} ({line['outcome']}, AU-PR)"
            yield f"{object}: {claim}: {verdict}; {points(line)} points, {told}."


def _p(line: "pd.Series[float]") -> float:
    """The p-value of a difference; 1 where one seed leaves none."""
    return 1.0 if np.isnan(line["p"]) else float(line["p"])
