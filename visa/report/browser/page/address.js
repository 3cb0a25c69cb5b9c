"use strict";
// What the page shows as the fragment of its address, so that a link shows it again; and what it shows without one.
visaBrowser.address = (() => {
  const PAUSE = 150; // ms: browsers refuse addresses that change too often
  let waiting;

  /** Name to value, both text; empty where the address names nothing. */
  function read() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  /** Put what `state()` then gives into the address and the link, a moment later. */
  function write(link, state) {
    waiting ??= setTimeout(() => {
      waiting = undefined;
      link.href = `#${new URLSearchParams(state())}`;
      if (link.hash !== location.hash) history.replaceState(null, "", link.hash);
    }, PAUSE);
  }

  /** A pre-training in an address: unlike its number, it is the same when others have been scored. */
  function keyOf({ pretraining, scope, seed }) {
    return `${pretraining}/${scope}/${seed}`;
  }

  /**
   * Object, setup and detector with the best image AU-ROC of SPD (A) and its baseline (B), the mean of both; without
   * such a pair that of a model alone. Where both are perfect no image differs: others come first.
   */
  function best(parts, models) {
    const found = parts.flatMap(({ object, setup, scored }) => scored.map(([model, detector, auroc]) => {
      const others = new Map(scored.filter(([, d]) => d === detector).map(([other, , of]) => [models[other], of]));
      const baseline = baselineOf(models[model], [...others.keys()]);
      const mean = baseline ? (auroc + others.get(baseline)) / 2 : auroc;
      const rank = [Number(Boolean(baseline)), Number(mean < 1), mean];
      return { rank, object, setup, detector, A: keyOf(models[model]), B: baseline ? keyOf(baseline) : "" };
    }));
    return found.sort((one, other) => compared(other.rank, one.rank))[0];
  }

  /** Of a model with SPD the same without, else the given weights that it began with, if they are among others. */
  function baselineOf({ pretraining, scope, seed }, others) {
    if (!pretraining.endsWith("+spd")) return undefined;
    const without = keyOf({ pretraining: pretraining.slice(0, -"+spd".length), scope, seed });
    return others.find((other) => keyOf(other) === without) ?? others.find((other) => other.pretraining === "given");
  }

  function compared(a, b) {
    const at = a.findIndex((number, i) => number !== b[i]);
    return at < 0 ? 0 : a[at] - b[at];
  }

  return { read, write, keyOf, best };
})();
