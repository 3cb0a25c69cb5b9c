"use strict";
// Precision, recall and F1 at a threshold. A case counts as called anomalous if its score is at or above it.
visaBrowser.figures = (() => {
  /**
   * Distinct scores from high to low, and how many anomalous (tp) and normal (fp) cases score at or above each.
   * anomalous[i] belongs to scores[i].
   */
  function curveOfScores(scores, anomalous) {
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    const curve = { levels: [], tp: [], fp: [] };
    let tp = 0;
    let fp = 0;
    order.forEach((i, k) => {
      if (anomalous[i]) tp += 1;
      else fp += 1;
      if (k + 1 < order.length && scores[order[k + 1]] === scores[i]) return; // equal scores enter together
      curve.levels.push(scores[i]);
      curve.tp.push(tp);
      curve.fp.push(fp);
    });
    return curve;
  }

  /** The same from counts: positives[k], negatives[k] cases have the level k. */
  function curveOfCounts(positives, negatives) {
    const curve = { levels: [], tp: [], fp: [] };
    let tp = 0;
    let fp = 0;
    for (let level = positives.length - 1; level >= 0; level -= 1) {
      tp += positives[level];
      fp += negatives[level];
      curve.levels.push(level);
      curve.tp.push(tp);
      curve.fp.push(fp);
    }
    return curve;
  }

  /** tp, fp, fn and tn at a threshold. */
  function countsAt(curve, threshold) {
    const last = lastAtLeast(curve.levels, threshold);
    const [tp, fp] = last < 0 ? [0, 0] : [curve.tp[last], curve.fp[last]];
    return { tp, fp, fn: curve.tp.at(-1) - tp, tn: curve.fp.at(-1) - fp };
  }

  /** The highest threshold with the best F1. */
  function bestThreshold(curve) {
    let best = 0;
    const f1 = (i) => (2 * curve.tp[i]) / (curve.tp[i] + curve.fp[i] + curve.tp.at(-1));
    curve.levels.forEach((_, i) => {
      if (f1(i) > f1(best)) best = i;
    });
    return curve.levels[best];
  }

  /** The next distinct score above (step 1) or below (step -1) a threshold; Infinity above the highest. */
  function nextThreshold(curve, threshold, step) {
    const last = lastAtLeast(curve.levels, threshold);
    if (step < 0) return curve.levels[Math.min(last + 1, curve.levels.length - 1)];
    const above = last >= 0 && curve.levels[last] > threshold ? last : last - 1;
    return above < 0 ? Infinity : curve.levels[above];
  }

  /** Precision, recall and F1; NaN where nothing is called anomalous, or nothing is. */
  function ratios({ tp, fp, fn }) {
    return { precision: tp / (tp + fp), recall: tp / (tp + fn), f1: (2 * tp) / (2 * tp + fp + fn) };
  }

  function sum(counts) {
    const total = { tp: 0, fp: 0, fn: 0, tn: 0 };
    for (const one of counts) for (const key in total) total[key] += one[key];
    return total;
  }

  /** Index of the lowest of falling levels that is at least the threshold; -1 if none is. */
  function lastAtLeast(levels, threshold) {
    let low = -1;
    let high = levels.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (levels[middle] >= threshold) low = middle;
      else high = middle;
    }
    return low;
  }

  return { curveOfScores, curveOfCounts, countsAt, bestThreshold, nextThreshold, ratios, sum };
})();
