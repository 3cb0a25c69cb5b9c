"use strict";
// The test images of the chosen objects, what side A (0) and side B (1) say of them, and which of them are shown.
visaBrowser.cases = (() => {
  const { curveOfScores, curveOfCounts, bestThreshold } = visaBrowser.figures;
  const parts = new Map();

  /** One object in one setup: its cases and scorings, thresholds at their best F1. */
  function partOf(entry) {
    if (!parts.has(entry.file)) parts.set(entry.file, visaBrowser.load(entry.file).then((found) => prepared(entry, found)));
    return parts.get(entry.file);
  }

  function prepared(entry, { images, scorings }) {
    const part = { object: entry.object, scorings, chosen: [] };
    const anomalous = images.map((image) => image.anomalous);
    for (const scoring of scorings) prepare(scoring, anomalous);
    part.cases = images.map((image, index) => ({ ...image, index, part }));
    return part;
  }

  function prepare(scoring, anomalous) {
    const { scores, maps } = scoring;
    const curves = { image: curveOfScores(scores, anomalous), pixel: maps && curveOfCounts(maps.positives, maps.negatives) };
    const sorted = [...scores].sort((a, b) => b - a);
    const ranks = new Map(sorted.map((score, i) => [score, i + 1]).reverse()); // equal scores share the best rank
    scoring.anomalous = anomalous;
    scoring.curves = curves;
    scoring.ranks = scores.map((score) => ranks.get(score));
    scoring.thresholds = { image: bestThreshold(curves.image), pixel: maps && bestThreshold(curves.pixel) };
  }

  /** Score, rank, and whether the decision is right, or undefined where the side has not scored the case. */
  function judged(one, side) {
    const scoring = one.part.chosen[side];
    if (!scoring) return undefined;
    const score = scoring.scores[one.index];
    const called = score >= scoring.thresholds.image;
    const verdict = one.anomalous ? (called ? "found" : "missed") : (called ? "false alarm" : "passed");
    return { score, rank: scoring.ranks[one.index], called, right: called === one.anomalous, verdict };
  }

  const FILTERS = {
    all: ["all", () => true],
    wrong: ["wrong", (a) => a && !a.right],
    "false alarm": ["false alarms", (a) => a?.verdict === "false alarm"],
    missed: ["misses", (a) => a?.verdict === "missed"],
    right: ["right", (a) => a?.right],
    differ: ["A and B differ", (a, b) => a && b && a.called !== b.called],
  };

  const ORDERS = {
    score0: ["score of A", (one) => judged(one, 0)?.score],
    score1: ["score of B", (one) => judged(one, 1)?.score],
    error: ["error of A", (one) => errorOf(one)],
    ranks: ["rank in A minus rank in B", (one) => judged(one, 0)?.rank - judged(one, 1)?.rank],
    name: ["name", (one) => one.name],
    object: ["object", (one) => one.part.object],
    defect: ["defect", (one) => defectOf(one)],
  };

  /** How far the score of A lies on the wrong side of its threshold; negative where the decision is right. */
  function errorOf(one) {
    const scoring = one.part.chosen[0];
    if (!scoring) return undefined;
    return (scoring.thresholds.image - scoring.scores[one.index]) * (one.anomalous ? 1 : -1);
  }

  function defectOf(one) {
    return one.anomalous ? one.defects.join(", ") || "anomalous" : "normal";
  }

  /** The cases of a defect (all, normal, anomalous, or a class) and decision, in order; direction -1 is from high to low. */
  function selected(cases, { defect, error, order, direction }) {
    const passes = FILTERS[error][1];
    const of = {
      all: () => true,
      normal: (one) => !one.anomalous,
      anomalous: (one) => one.anomalous,
    }[defect] ?? ((one) => one.defects.includes(defect.slice("class ".length)));
    const key = ORDERS[order][1];
    return cases
      .filter((one) => of(one) && passes(judged(one, 0), judged(one, 1)))
      .map((one) => [key(one), one])
      .sort(([a, one], [b, other]) => compared(a, b) * direction || compared(one.name, other.name))
      .map(([, one]) => one);
  }

  function compared(a, b) {
    if (typeof a === "string") return a < b ? -1 : Number(a > b);
    return (a ?? -Infinity) - (b ?? -Infinity) || 0;
  }

  return { partOf, judged, selected, defectOf, FILTERS, ORDERS };
})();
