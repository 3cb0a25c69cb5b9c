"""The comparisons that book/protocol.md settles: outcomes, each arm's control, differences, and what may be said."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from visa.errors import VisaError
from visa.pretrain.diagnose import BASE_LEARNED, SPREAD_LEARNED, TERM_LEARNED
from visa.report.tables import overall, paired_difference, summary_table

OUTCOMES = {  # setup, detector and level: all are of AU-PR, the paper's primary metric
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
SIZES = ("small", "middle", "large")  # thirds of an object's defects by their share of the image
PRIMARY_COLUMNS = (
    *("object", "comparison", "verdict", "difference [over seeds]", "[over seeds and draws]", "p (Holm)", "learned"),
    "outcome",
)


def differences(metrics: pd.DataFrame) -> pd.DataFrame:
    """Subtract from the AU-PR of each arm its control's, paired by seed and draw: a row an object, arm and outcome.

    Columns are those of `paired_difference`, with the 95 % interval, and `arm`, `control`, `compared` (both),
    `outcome`, and `p` over seeds. The given weights, measured once, are the control of every seed. Raises VisaError if
    no arm has its control.
    """
    metrics = with_outcome(metrics)
    given, seeds = metrics[metrics["pretraining"] == "given"], sorted(set(metrics["seed"]))
    metrics = pd.concat([metrics[metrics["pretraining"] != "given"], *(given.assign(seed=seed) for seed in seeds)])
    measured = ordered(set(metrics["pretraining"]))
    parts = [
        paired_difference(metrics, arm, control_of(arm)).assign(arm=arm, control=control_of(arm))
        for arm in measured
        if control_of(arm) in measured
    ]
    if not parts:
        raise VisaError("no arm of the protocol is measured beside its control: measure both.")
    table = with_outcome(pd.concat(parts, ignore_index=True))
    table["compared"] = table["arm"] + " − " + table["control"]
    table.loc[table["over"] != "seeds", ["low", "high"]] = np.nan  # of one seed there is no interval over seeds
    error = table["sd"] / table["n"] ** 0.5
    p = 2 * stats.t.sf((table["mean"] / error).abs(), table["n"] - 1)
    return table.assign(p=np.where(table["n"] > 1, p, np.nan))


def control_of(arm: str) -> str:
    """Name an arm's control; with a setting changed (`arm, NAME=VALUE`) that with the same change, if it is trained."""
    name, comma, change = arm.partition(", ")
    control = CONTROLS.get(name, "")
    return control + comma + change if control in CONTROLS else control


def ordered(arms: Iterable[str]) -> list[str]:
    """Sort arms as CONTROLS has them, each before those that differ from it by a setting."""
    return sorted(arms, key=lambda arm: (["given", *CONTROLS].index(arm.partition(", ")[0]), arm))


def with_outcome(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are an outcome of the protocol, named in the column `outcome`."""
    names = {(*key, "au_pr"): name for name, key in OUTCOMES.items()}
    keys = metrics[["setup", "detector", "level", "metric"]].itertuples(index=False, name=None)
    named = metrics.assign(outcome=pd.Series([names.get(key) for key in keys], metrics.index, dtype=object))
    return named[named["outcome"].notna()]


def is_primary(table: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the rows of `differences` that are primary comparisons."""
    return table[["arm", "outcome"]].apply(tuple, axis=1).isin(PRIMARY)


def points(line: "pd.Series[float]") -> str:
    """Write a row of `differences` in points as `mean [low, high]`, with signs."""
    mean, low, high = (signed(line[name]) for name in ("mean", "low", "high"))
    return mean if np.isnan(line["low"]) else f"{mean} [{low}, {high}]"


def signed(value: float) -> str:
    """Write a difference in points with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def differences_table(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Lay out the `differences` of one object, arms down, bold where an interval excludes 0, and which arms learned."""
    cells = [f"**{points(line)}**" if line["low"] * line["high"] > 0 else points(line) for _, line in table.iterrows()]
    wide = table.assign(cell=cells).pivot(index=["arm", "compared"], columns="outcome", values="cell").fillna("–")
    wide = wide.loc[ordered(set(table["arm"])), [name for name in OUTCOMES if name in wide]].reset_index("arm")
    wide["arm"] = [learned_told(facts[facts["pretraining"] == arm]) for arm in wide["arm"]]
    return wide.rename(columns={"arm": "learned"}).rename_axis(index="difference", columns=None).reset_index()


def means(metrics: pd.DataFrame) -> pd.DataFrame:
    """Compute each arm's AU-PR in every outcome: a `summary_table`."""
    return summary_table(with_outcome(metrics), ["object", "pretraining", "outcome"])


def au_pr_table(metrics: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Lay out the mean AU-PR of one object in points: arms down (`weights`), outcomes across.

    The best of an outcome is bold; ▲ or ▼ stands where an exploratory difference to the arm's control (`table`, see
    `differences`) has an interval that excludes 0.
    """
    wide = means(metrics).pivot(index="pretraining", columns="outcome", values="mean")
    wide = 100 * wide.loc[ordered(wide.index), [name for name in OUTCOMES if name in wide]]
    cells = wide.map("{:.1f}".format).mask(wide.isna(), "–")
    cells = cells.mask(wide == wide.max(), "**" + cells + "**")
    for _, line in table[~is_primary(table)].iterrows():  # `primary_table` judges the others
        mark = "▲ " * bool(line["low"] > 0) + "▼ " * bool(line["high"] < 0)
        cells.loc[line["arm"], line["outcome"]] = mark + cells.loc[line["arm"], line["outcome"]]
    return cells.rename_axis(index="weights", columns=None).reset_index()


def primary_table(metrics: pd.DataFrame, table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Judge the primary comparisons, a row each, by Holm's correction over those of an object.

    table: see `differences`; facts: a row an arm and seed, with columns `object`, `pretraining`, `learned` and those of
    GATES. The columns are PRIMARY_COLUMNS: differences in points, the interval over seeds and draws that of
    `crossed_interval`, p after the correction.
    """
    rows = []
    for object, of_object in table.groupby("object", sort=False):
        measured = of_object.fillna({"p": 1.0})[is_primary(of_object)].sort_values("p", kind="stable")
        ranks = range(len(PRIMARY), len(PRIMARY) - len(measured), -1)  # the family is of both, measured or not
        holm = (measured["p"] * ranks).cummax().clip(upper=1)
        for place in sorted(measured.index):
            line, p = measured.loc[place], holm.loc[place]
            own = facts[(facts["object"] == object) & (facts["pretraining"] == line["arm"])]
            low, high = crossed_interval(metrics[metrics["object"] == object], line)
            both = "–" if np.isnan(low) else f"[{signed(low)}, {signed(high)}]"
            verdict = "not decided" if p >= 0.05 else "supported" if line["mean"] > 0 else "refuted"
            told = (points(line), both, f"{p:.3f}", learned_told(own), line["outcome"])
            rows.append((object, line["compared"], verdict, *told))
        done = set(zip(measured["arm"], measured["outcome"], strict=True))
        for arm, outcome in (key for key in PRIMARY if key not in done):  # too few images, or no such arm
            rows.append((object, f"{arm} − {CONTROLS[arm]}", "not measured", *["–"] * 4, outcome))
    return pd.DataFrame(rows, columns=list(PRIMARY_COLUMNS))


def power(tables: Iterable[tuple[pd.DataFrame, str]]) -> str:
    """Say how large a difference each primary comparison finds at its spread; tables: `differences`, and a backbone.

    That is at p < .025, the first step of Holm's correction: the t-quantiles of .9875 and .8, times sd / sqrt(n).
    """
    told = []
    for table, backbone in tables:
        for _, line in table[is_primary(table) & (table["n"] > 1)].iterrows():
            least = 100 * stats.t.ppf([0.9875, 0.8], line["n"] - 1).sum() * line["sd"] / line["n"] ** 0.5
            told.append(f"{least:.1f} points ({line['compared']}, {line['object']}, {backbone})")
    found = f"about four of five experiments find (p < .025) a true difference of {'; '.join(told)}"
    return f"At the spread that was reached, {found}.\n" if told else ""


def sized(defects: pd.DataFrame) -> pd.DataFrame:
    """Add the `size` of each defect: the third of its object's areas that it lies in."""
    defects = defects.sort_values("area", ignore_index=True)
    thirds = [pd.qcut(own["area"].rank(method="min"), 3, SIZES) for _, own in defects.groupby("object")]
    return defects.assign(size=pd.concat(thirds).astype(str))


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """Say what each row of `primary_table` says."""
    for object, compared, verdict, difference, _, p, learned, outcome in table.itertuples(index=False, name=None):
        if verdict == "not measured":
            yield f"{object}: not measured. {compared} ({outcome}): too few images, or no such arm."
            continue
        by = f"{difference} points of AU-PR ({outcome}; p = {p} after Holm's correction)"
        yield f"{object}: {verdict}. {compared}: {by}; trainings that learned: {learned}."


def crossed_interval(metrics: pd.DataFrame, line: "pd.Series[float]") -> tuple[float, float]:
    """Compute the 95 % interval of a row of `differences` over seeds and few-shot draws, both as random effects.

    The two are crossed: the variance of the mean is that of the seeds' means plus that of the draws' means, less the
    residual that both contain; a negative estimate of the draws' part counts as 0. The degrees of freedom are those of
    the smaller of the two. NaN where there is one.
    """
    values = with_outcome(overall(metrics))
    values = values[values["outcome"] == line["outcome"]].pivot(
        index="draw", columns=["pretraining", "seed"], values="value"
    )
    control = values[line["control"]]
    own = values[line["arm"]].sub(control[0] if line["control"] == "given" else control, axis=0).dropna(axis=1)
    draws, seeds = own.shape
    if min(draws, seeds) < 2:
        return np.nan, np.nan
    noise = own.sub(own.mean(axis=1), axis=0) - own.mean() + own.to_numpy().mean()
    residual = (noise**2).to_numpy().sum() / (draws - 1) / (seeds - 1)
    variance = own.mean().var() / seeds + max(own.mean(axis=1).var() / draws - residual / seeds / draws, 0)
    half = stats.t.ppf(0.975, min(draws, seeds) - 1) * variance**0.5
    return own.to_numpy().mean() - half, own.to_numpy().mean() + half


def learned_told(facts: pd.DataFrame) -> str:
    """Say how many trainings of an arm learned, how many passed each gate, and where these are too few to judge it."""
    learned, n = facts["learned"].astype(float), len(facts)
    gates = {name: gate for name, gate in GATES.items() if name in facts and facts[name].notna().any()}
    passed = {what: int((facts[name] >= gate).sum()) for name, (what, gate) in gates.items()}
    told = ", ".join(f"{what} {count}" for what, count in passed.items())
    names = (arm.partition(", ")[0] for arm in not_learned(facts))
    few = "".join(f"; says nothing of {name if name in ('SimSiam', 'supervised') else 'SPD'}" for name in names)
    return f"{int(learned.sum())} of {n}" + f" ({told})" * bool(min(passed.values(), default=n) < n) + few


def not_learned(facts: pd.DataFrame) -> set[str]:
    """The arms of one object of which fewer than half of the trainings learned."""
    share = facts[facts["pretraining"] != "given"].astype({"learned": float}).groupby("pretraining")["learned"].mean()
    return set(share[share < 0.5].index)
