"use strict";
// The two sides' thresholds: histogram, slider and decisions, of images and of pixels; and the metrics of both sides.
visaBrowser.panel = (() => {
  const { countsAt, bestThreshold, nextThreshold, ratios, sum } = visaBrowser.figures;
  const STEPS = 1000; // of the slider over image scores; its last is above all
  const BARS = 50;
  const KINDS = ["image", "pixel"];
  const sides = [];

  /** Make both sides; `moved(kind)` is called after a threshold has moved, "image" or "pixel". */
  function make(place, moved) {
    for (const name of ["A", "B"]) {
      const root = document.getElementById("side").content.cloneNode(true).firstElementChild;
      const side = { name, root, scorings: [], rows: {} };
      for (const kind of KINDS) wire(side, kind, moved);
      sides.push(side);
      place.append(root);
    }
  }

  function wire(side, kind, moved) {
    const box = boxOf(side, kind);
    side.rows[kind] = document.getElementById("row").content.cloneNode(true).firstElementChild;
    side.rows[kind].firstElementChild.textContent = side.name;
    document.querySelector(`#summary .${kind} tbody`).append(side.rows[kind]);
    const slider = box.querySelector("input");
    slider.setAttribute("aria-label", `${kind === "image" ? "Image" : "Pixel"} threshold of ${side.name}`);
    slider.addEventListener("input", () => set(side, kind, fromSlider(side.scorings[0], kind, Number(slider.value)), moved));
    for (const button of box.querySelectorAll("button")) {
      const what = button.value === "best" ? "at the best F1" : button.value === "1" ? "up" : "down";
      button.setAttribute("aria-label", `${slider.getAttribute("aria-label")} ${what}`);
      button.addEventListener("click", () => step(side, kind, button.value, moved));
    }
  }

  /** Move a threshold to the next score or level (±1) or to the best F1. */
  function step(side, kind, by, moved) {
    const [scoring] = side.scorings;
    if (side.scorings.length !== 1 || !scoring.curves[kind]) return;
    const { curves, thresholds } = scoring;
    const next = by === "best" ? bestThreshold(curves[kind])
      : kind === "image" ? nextThreshold(curves.image, thresholds.image, Number(by))
      : Math.min(256, Math.max(0, thresholds.pixel + Number(by)));
    set(side, kind, next, moved);
  }

  function set(side, kind, threshold, moved) {
    side.scorings[0].thresholds[kind] = threshold;
    moved(kind);
  }

  /** Show what the parts' chosen scorings say; titles[side] is "" for a side that is not in use. asked: `thresholds`. */
  function show(parts, titles, asked) {
    sides.forEach((side, s) => {
      side.root.hidden = !titles[s];
      side.scorings = parts.map((part) => part.chosen[s]).filter(Boolean);
      side.root.querySelector("h2").textContent = `${side.name}: ${titles[s]}`;
      const note = side.root.querySelector(".none");
      note.hidden = side.scorings.length > 0;
      note.textContent = "Not scored: choose another detector, setup or pre-training.";
      for (const kind of KINDS) {
        const box = boxOf(side, kind);
        box.hidden = !side.scorings.length || !side.scorings.every((scoring) => scoring.curves[kind]);
        box.classList.toggle("several", side.scorings.length > 1);
        side.rows[kind].hidden = side.root.hidden || box.hidden;
        if (asked && !box.hidden) restore(side, kind, Number.parseFloat(asked[`${kind}${side.name}`]));
      }
    });
    for (const kind of KINDS) document.querySelector(`#summary .${kind}`).hidden = sides.every((side) => side.rows[kind].hidden);
    update();
  }

  /** Set a threshold as an address gives it; without one, and for several objects, to the best F1. */
  function restore(side, kind, threshold) {
    for (const { curves, thresholds } of side.scorings) {
      const asked = side.scorings.length === 1 && !Number.isNaN(threshold);
      const inside = kind === "pixel" ? Math.min(256, Math.max(0, Math.round(threshold))) : Math.max(curves.image.levels.at(-1), threshold);
      thresholds[kind] = asked ? inside : bestThreshold(curves[kind]);
    }
  }

  /** The thresholds that are not at the best F1, by their names in an address. */
  function thresholds() {
    const found = {};
    for (const { name, root, scorings: [scoring, ...others] } of sides) {
      for (const kind of KINDS) {
        if (root.hidden || others.length || !scoring?.curves[kind]) continue;
        if (scoring.thresholds[kind] !== bestThreshold(scoring.curves[kind])) found[`${kind}${name}`] = scoring.thresholds[kind];
      }
    }
    return found;
  }

  function update() {
    for (const side of sides.filter((s) => !s.root.hidden)) {
      for (const kind of KINDS) if (!boxOf(side, kind).hidden) updateBox(side, kind);
    }
  }

  function updateBox(side, kind) {
    const box = boxOf(side, kind);
    const counts = sum(side.scorings.map((scoring) => countsAt(scoring.curves[kind], scoring.thresholds[kind])));
    const share = ratios(counts);
    const one = side.scorings.length === 1 ? side.scorings[0] : null;
    for (const cell of box.querySelectorAll("[data-figure]")) cell.textContent = counts[cell.dataset.figure].toLocaleString("en");
    for (const cell of side.rows[kind].querySelectorAll("[data-figure]")) {
      cell.textContent = fixed({ ...one?.metrics[kind], ...share }[cell.dataset.figure]);
    }
    box.querySelector("output").textContent = one ? textOf(one, kind) : "each object's own";
    if (one) showThreshold(box, one, kind);
  }

  function showThreshold(box, scoring, kind) {
    const slider = box.querySelector("input");
    const value = toSlider(scoring, kind);
    if (fromSlider(scoring, kind, Number(slider.value)) !== scoring.thresholds[kind]) slider.value = Math.round(value);
    slider.setAttribute("aria-valuetext", textOf(scoring, kind));
    slider.title = kind === "pixel" ? `step ${scoring.thresholds.pixel} of 256` : "";
    const svg = box.querySelector("svg");
    if (svg.scoring !== scoring) drawHistogram(svg, scoring, kind);
    const x = Math.min(100, (100 * value) / Number(slider.max));
    svg.lastElementChild.setAttribute("x1", x);
    svg.lastElementChild.setAttribute("x2", x);
  }

  function ends(scoring) {
    const { levels } = scoring.curves.image;
    return [levels.at(-1), levels[0]];
  }

  function fromSlider(scoring, kind, value) {
    if (kind === "pixel") return value;
    const [low, high] = ends(scoring);
    return value >= STEPS ? Infinity : low + ((high - low) * value) / STEPS;
  }

  function toSlider(scoring, kind) {
    const threshold = scoring.thresholds[kind];
    const [low, high] = ends(scoring);
    if (kind === "pixel") return threshold;
    return threshold === Infinity ? STEPS : Math.min(STEPS, (STEPS * (threshold - low)) / (high - low || 1));
  }

  function textOf(scoring, kind) {
    const threshold = scoring.thresholds[kind];
    if (kind === "image") return threshold === Infinity ? "above all" : threshold.toPrecision(4);
    const { low, step } = scoring.maps;
    return threshold > 255 ? "above all" : (low + threshold * step).toPrecision(4);
  }

  /** Normal cases above the middle line, anomalous ones below, each to its own highest bar; pixels on a log scale. */
  function drawHistogram(svg, scoring, kind) {
    const [normal, anomalous] = kind === "image" ? binned(scoring) : [scoring.maps.negatives, scoring.maps.positives].map(logarithms);
    svg.replaceChildren(bars(normal, -1, "normal"), bars(anomalous, 1, "anomalous"), line());
    svg.setAttribute("aria-label", `Distribution of scores: normal ${kind}s upwards, anomalous ones downwards`);
    svg.scoring = scoring;
  }

  function binned(scoring) {
    const [low, high] = ends(scoring);
    const counts = [new Array(BARS).fill(0), new Array(BARS).fill(0)];
    scoring.scores.forEach((score, i) => {
      counts[Number(scoring.anomalous[i])][Math.min(BARS - 1, Math.floor((BARS * (score - low)) / (high - low || 1)))] += 1;
    });
    return counts;
  }

  function logarithms(counts) {
    return counts.map((count) => Math.log10(1 + count));
  }

  function bars(counts, direction, name) {
    const [width, most] = [100 / counts.length, Math.max(...counts, 1e-9)];
    const d = counts.map((count, i) => (count ? `M${i * width} 20v${(direction * 20 * count) / most}h${width}V20z` : ""));
    return shape("path", { class: name, d: d.join("") });
  }

  function line() {
    return shape("line", { y1: 0, y2: 40, class: "at" });
  }

  function shape(tag, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function fixed(value) {
    return Number.isFinite(value) ? value.toFixed(3) : "–";
  }

  function boxOf(side, kind) {
    return side.root.querySelector(`.threshold.${kind}`);
  }

  return { make, show, update, thresholds, step: (s, kind, by, moved) => step(sides[s], kind, by, moved) };
})();
