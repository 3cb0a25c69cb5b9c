"""The comparisons that book/protocol.md settles: outcomes, each arm's control, differences, and what may be said."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from visa.errors import VisaError
from visa.pretrain.diagnose import BASE_LEARNED, SPREAD_LEARNED, TERM_LEARNED
from visa.report.tables import paired_difference, summary_table

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
GATES = {  # columns of the facts: what they are, and their gate
    "base_gain": ("base loss", BASE_LEARNED),
    "spread": ("spread", SPREAD_LEARNED),
    "term": ("SPD term", TERM_LEARNED),
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
    named = metrics.assign(outcome=pd.Series([names.get(key) for key in keys], metrics.index, dtype=object))
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


def au_pr_table(metrics: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Lay out the mean AU-PR of one object in points: arms down (`weights`), outcomes across.

    The best of an outcome is bold; ▲ or ▼ stands where the arm's difference to its control (`table`, see `differences`)
    has an interval without 0.
    """
    means = summary_table(with_outcome(metrics), ["pretraining", "outcome"])
    wide = means.pivot(index="pretraining", columns="outcome", values="mean")
    arms = [arm for arm in ("given", *CONTROLS) if arm in wide.index]
    wide = 100 * wide.reindex(arms)[[name for name in OUTCOMES if name in wide]]
    cells = wide.map("{:.1f}".format).mask(wide.isna(), "–")
    cells = cells.mask(wide == wide.max(), "**" + cells + "**")
    for _, line in table.iterrows():
        mark = "▲ " * bool(line["low"] > 0) + "▼ " * bool(line["high"] < 0)
        cells.loc[line["arm"], line["outcome"]] = mark + cells.loc[line["arm"], line["outcome"]]
    return cells.rename_axis(index="weights", columns=None).reset_index()


def sentences(table: pd.DataFrame, facts: pd.DataFrame) -> Iterator[str]:
    """One sentence a primary comparison of an object: supported, refuted or not decided, by Holm's correction.

    facts: a row an arm and seed, with columns `object`, `pretraining`, `learned` and those of GATES.
    """
    for object, of_object in table.groupby("object", sort=False):
        rows = {(line["arm"], line["outcome"]): line for _, line in of_object.iterrows()}
        measured = [rows[key] for key in PRIMARY if key in rows]
        for arm, outcome in (key for key in PRIMARY if key not in rows):
            yield f"{object}: not measured. {arm} ({outcome}): too few images, or no such arm."
        ordered = sorted(_p(line) for line in measured)
        for line in measured:
            rank = ordered.index(_p(line))
            held = all(p * (len(ordered) - i) < 0.05 for i, p in enumerate(ordered[: rank + 1]))
            verdict = "not decided" if not held else "supported" if line["mean"] > 0 else "refuted"
            measured_by = f"{points(line)} points of AU-PR ({line['outcome']}; p = {_p(line):.2g}, {line['n']} seeds)"
            told = training_told(facts[(facts["object"] == object) & (facts["pretraining"] == line["arm"])])
            yield f"{object}: {verdict}. {line['arm']} against {line['control']}: {measured_by}; {told}."


def training_told(facts: pd.DataFrame) -> str:
    """Say how many trainings of an arm learned, and which gates the others missed."""
    learned = facts["learned"].astype(float)
    told = f"{int(learned.sum())} of {len(learned)} trainings learned"
    missed = {
        what: int((facts[name].astype(float) < gate).sum()) for name, (what, gate) in GATES.items() if name in facts
    }
    if any(missed.values()):
        told += f" ({', '.join(f'{what} below its gate in {n}' for what, n in missed.items() if n)})"
    return told + ", so that this says nothing of SPD" * bool(learned.mean() < 0.5)


def not_learned(facts: pd.DataFrame) -> set[str]:
    """The arms of one object of which fewer than half of the trainings learned."""
    share = facts[facts["pretraining"] != "given"].astype({"learned": float}).groupby("pretraining")["learned"].mean()
    return set(share[share < 0.5].index)


def _p(line: "pd.Series[float]") -> float:
    """The p-value of a difference; 1 where one seed leaves none."""
    return 1.0 if np.isnan(line["p"]) else float(line["p"])
