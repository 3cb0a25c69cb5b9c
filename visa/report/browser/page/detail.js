"use strict";
// One case, large.
visaBrowser.detail = (() => {
  const { defectOf, judged } = visaBrowser.cases;
  const views = visaBrowser.views;
  const find = (id) => document.getElementById(id);
  let current = null;
  let shown = [];
  let state = () => ({ sides: 1, look: {} });
  let tell = () => {};

  /** `currentState()` gives sides and look; `changed()` is called when another case is shown, or none. */
  function make(currentState, changed) {
    state = currentState;
    tell = changed;
    const dialog = find("detail");
    find("close").addEventListener("click", () => dialog.close());
    find("previous").addEventListener("click", () => move(-1));
    find("next").addEventListener("click", () => move(1));
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) move(step);
    });
    dialog.addEventListener("close", () => {
      visaBrowser.gallery.focus(current);
      current = null;
      tell();
    });
  }

  function open(one) {
    current = one;
    shown = [];
    find("detail-name").textContent = one.name;
    find("detail-views").replaceChildren();
    update();
    if (!find("detail").open) find("detail").showModal();
    tell();
  }

  function move(step) {
    const next = visaBrowser.gallery.neighbour(current, step);
    if (next) open(next);
  }

  function fade(opacity) {
    views.fade(shown, opacity);
  }

  /** Show the open case at the present thresholds and look. */
  function update() {
    if (!current) return;
    const { sides, look } = state();
    while (shown.length < sides) {
      shown.push(views.make(current));
      find("detail-views").append(shown.at(-1).root);
    }
    const ranks = shown.map((_, side) => judged(current, side)).map((said, side) =>
      said ? `rank ${said.rank} of ${current.part.cases.length} by ${"AB"[side]}` : "");
    find("detail-truth").textContent = [`${current.part.object}: ${defectOf(current)}`, ...ranks.filter(Boolean)].join(" · ");
    shown.forEach((view, side) => {
      views.tell(view, side, sides > 1 ? `${"AB"[side]} ` : "score ");
      views.paint(view, side, { ...look, counts: true });
    });
    for (const [id, step] of [["previous", -1], ["next", 1]]) find(id).disabled = !visaBrowser.gallery.neighbour(current, step);
  }

  return { make, open, update, fade, close: () => find("detail").close(), name: () => current?.name };
})();
