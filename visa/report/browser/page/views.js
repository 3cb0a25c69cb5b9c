"use strict";
// One image as one side sees it: picture, map, outline, score and decision. Cards and the large view are made of these.
visaBrowser.views = (() => {
  const { judged } = visaBrowser.cases;
  const overlay = visaBrowser.overlay;
  const waiting = new Set();
  let opacity = 1;

  function make(one) {
    const root = document.getElementById("view").content.cloneNode(true).firstElementChild;
    const part = (name) => root.querySelector(name);
    part("img").src = one.picture;
    root.style.setProperty("--shape", one.shape.join(" / "));
    const view = { root, one, map: part(".map"), outline: part(".outline"), turn: 0 };
    return Object.assign(view, { score: part(".score"), verdict: part(".verdict"), pixels: part(".pixels") });
  }

  /** Score and decision as text; `name` stands before the score. */
  function tell(view, side, name) {
    const said = judged(view.one, side);
    put(view.score, said ? `${name}${said.score.toPrecision(4)}` : `${name}not scored`);
    put(view.verdict, said?.verdict ?? "");
    if (view.root.dataset.verdict !== view.verdict.textContent) view.root.dataset.verdict = view.verdict.textContent;
  }

  /** Draw map and outline; what arrives after a later call is dropped. look: mode, truth, and counts for numbers. */
  function paint(view, side, look) {
    const drawn = draw(view, side, look, (view.turn += 1)).catch((error) => put(view.score, error.message));
    waiting.add(drawn);
    drawn.then(() => waiting.delete(drawn));
  }

  async function draw(view, side, look, turn) {
    const { one } = view;
    const scoring = one.part.chosen[side];
    const wanted = scoring?.maps && look.mode !== "none";
    const [levels, mask] = await Promise.all([wanted ? overlay.levelsOf(scoring, one.index) : null, overlay.maskOf(one)]);
    if (turn !== view.turn) return;
    fade([view]);
    const threshold = scoring?.thresholds.pixel;
    overlay.paint(view.map, levels, mask, { ...look, threshold, middle: scoring?.maps?.middle, known: one.known });
    overlay.outline(view.outline, look.truth ? mask : null);
    put(view.pixels, look.counts && levels && one.known ? pixelText(overlay.countsOf(levels, mask, threshold)) : "");
  }

  /** Give views' maps the present opacity, or a new one: from now on it is that of all that are drawn. */
  function fade(some, now = opacity) {
    opacity = now;
    for (const view of some) view.map.style.opacity = opacity;
  }

  /** Resolves when all that was to be drawn is drawn. */
  async function settled() {
    while (waiting.size) await Promise.all(waiting);
  }

  /** Give back the memory of what is out of sight. */
  function clear(view) {
    view.turn += 1;
    for (const canvas of [view.map, view.outline]) canvas.width = canvas.height = 1;
  }

  function pixelText({ tp, fp, fn, tn }) {
    const percent = (count, of) => `${((100 * count) / of).toFixed(1)} %`;
    const outside = `${percent(fp, fp + tn)} of the normal pixels called anomalous`;
    return tp + fn ? `${percent(tp, tp + fn)} of the defect found, ${outside}` : outside;
  }

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  return { make, tell, paint, fade, clear, settled };
})();
