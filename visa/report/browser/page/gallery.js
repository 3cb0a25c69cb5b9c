"use strict";
// The cards: made once for each case, moved when the order changes, drawn while they are in sight.
visaBrowser.gallery = (() => {
  const { defectOf } = visaBrowser.cases;
  const views = visaBrowser.views;
  const cards = new Map(); // case to its card
  const seen = new Set(); // cards in sight
  let place;
  let shown = [];
  let sides = 1;
  let look = {};
  let open;

  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) seen.add(target.card);
      else forget(target.card);
      if (isIntersecting) paintCard(target.card);
    }
  }, { rootMargin: "150px" });

  function make(list, opened) {
    place = list;
    open = opened;
    place.addEventListener("keydown", navigate);
  }

  /** Show these cases, in this order, as one side sees them or two. */
  function arrange(cases, count) {
    const current = shown.find((one) => cards.get(one).button === document.activeElement);
    shown = cases;
    sides = count;
    const made = cases.map(cardOf);
    for (const card of made) tell(card);
    place.replaceChildren(...made.map((card) => card.root));
    for (const card of [...seen]) if (!card.root.isConnected) forget(card);
    const first = current && cases.includes(current) ? current : cases[0];
    for (const card of made) if (card.button.tabIndex === 0) card.button.tabIndex = -1;
    if (first) cards.get(first).button.tabIndex = 0;
    if (current) (cards.get(first)?.button ?? place).focus({ preventScroll: first !== current });
  }

  /** Draw the maps in sight anew. */
  function paint(how) {
    look = how;
    for (const card of seen) paintCard(card);
  }

  /** Give the maps in sight another opacity. */
  function fade(opacity) {
    views.fade([...seen].flatMap((card) => card.views), opacity);
  }

  function cardOf(one) {
    if (!cards.has(one)) cards.set(one, madeCard(one));
    return cards.get(one);
  }

  function madeCard(one) {
    const root = document.getElementById("card").content.cloneNode(true).firstElementChild;
    const button = root.querySelector("button");
    const card = { root, button, one, views: [] };
    root.card = card;
    root.querySelector(".name").textContent = one.name.split("/").at(-1);
    root.querySelector(".name").title = one.name;
    root.querySelector(".truth").textContent = defectOf(one);
    button.addEventListener("click", () => open(one));
    button.addEventListener("focus", () => {
      for (const other of place.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
      button.tabIndex = 0;
    });
    sight.observe(root);
    return card;
  }

  function tell(card) {
    const box = card.root.querySelector(".views");
    while (card.views.length < sides) {
      card.views.push(views.make(card.one));
      box.append(card.views.at(-1).root);
    }
    card.views.forEach((view, side) => {
      view.root.hidden = side >= sides;
      if (side < sides) views.tell(view, side, sides > 1 ? `${"AB"[side]} ` : "");
    });
  }

  function paintCard(card) {
    card.views.slice(0, sides).forEach((view, side) => views.paint(view, side, look));
  }

  function forget(card) {
    seen.delete(card);
    card.views.forEach(views.clear);
  }

  function navigate(event) {
    const buttons = [...place.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns(), ArrowUp: at - columns() };
    const target = { ...moves, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || target === undefined || !buttons[target]) return;
    event.preventDefault();
    buttons[target].focus();
  }

  function columns() {
    const tops = [...place.children].map((child) => child.offsetTop);
    const next = tops.findIndex((top) => top > tops[0]);
    return next < 0 ? tops.length : next;
  }

  /** The shown case `step` places from a case, and how many there are. */
  function neighbour(one, step) {
    return shown[shown.indexOf(one) + step];
  }

  return { make, arrange, paint, fade, neighbour, retell: () => shown.forEach((one) => tell(cardOf(one))), focus: (one) => cards.get(one)?.button.focus() };
})();
