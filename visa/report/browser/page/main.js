"use strict";
// Controls hold the state of the page: they are read, and what depends on them is shown anew. The address follows.
(async () => {
  const { address, cases, panel, gallery, detail } = visaBrowser;
  const CONTROLS = { // by their names in the address
    object: "object", setup: "setup", detector: "detector", A: "model0", B: "model1", defect: "defect", decision: "error",
    sort: "order", direction: "direction", show: "mode", opacity: "fade",
  };
  const find = (id) => document.getElementById(id);
  const value = (id) => find(id).value;
  const index = await visaBrowser.load("index.js").catch(fail);
  if (!index) return;
  let parts = [];
  let turn = 0;

  visaBrowser.heat = visaBrowser.overlay.heatColours(index.about.heat);
  introduce();
  panel.make(find("sides"), moved);
  gallery.make(find("gallery"), detail.open);
  detail.make(() => ({ sides: sides(), look: look() }), remember);
  for (const id of ["object", "setup", "detector", "model0", "model1"]) find(id).addEventListener("change", () => choose());
  for (const id of ["order", "direction", "defect", "error"]) find(id).addEventListener("change", arrange);
  for (const id of ["mode", "truth"]) find(id).addEventListener("change", paint);
  find("fade").addEventListener("input", fade);
  find("panel").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", shortcut);
  find("ask").addEventListener("click", () => find("help").showModal());
  find("help-close").addEventListener("click", () => find("help").close());
  window.addEventListener("hashchange", restore);
  await restore();
  document.body.dataset.ready = "yes";

  /** Show what the address says; what it leaves out or what is not there any more is as at the opening. */
  async function restore() {
    const asked = address.read();
    const opening = !["", ...objects()].includes(asked.object);
    for (const id of ["direction", "mode", "fade"]) reset(find(id), asked[nameOf(id)]);
    find("truth").checked = asked.outline !== "no";
    fade();
    if (!(await choose(opening ? { decision: "differ" } : asked))) return;
    if (opening && !find("gallery").children.length) put("error", "all");
    const one = allCases().find(({ name }) => name === asked.image);
    if (one) detail.open(one);
    else detail.close();
  }

  /** The state under its names in an address; thresholds that are at the best F1 are left out. */
  function state() {
    const chosen = Object.fromEntries(Object.entries(CONTROLS).map(([name, id]) => [name, value(id)]));
    const image = detail.name();
    return { ...chosen, outline: find("truth").checked ? "yes" : "no", ...panel.thresholds(), ...(image && { image }) };
  }

  function remember() {
    address.write(find("link"), state);
  }

  function objects() {
    return [...new Set(index.parts.map((part) => part.object))];
  }

  function sides() {
    return value("model1") === "" ? 1 : 2;
  }

  function look() {
    return { mode: value("mode"), truth: find("truth").checked };
  }

  /** Fill the choices that depend on each other, load what is chosen, and show it; as `fill` chooses. */
  async function choose(asked) {
    const mine = (turn += 1);
    const best = (entries) => address.best(entries, index.models);
    const titled = (name) => [name, index.about.titles[name] ?? name];
    const all = objects();
    fill("object", [...(all.length > 1 ? [["", "all objects"]] : []), ...all.map((name) => [name, name])], asked, best(index.parts).object);
    let entries = index.parts.filter((part) => !value("object") || part.object === value("object"));
    fill("setup", distinct(entries.map((part) => part.setup)).map(titled), asked, best(entries).setup);
    entries = entries.filter((part) => part.setup === value("setup"));
    fill("detector", distinct(entries.flatMap((part) => part.scored.map(([, d]) => d))).map(titled), asked, best(entries).detector);
    const scored = entries.map((part) => ({ ...part, scored: part.scored.filter(([, d]) => d === value("detector")) }));
    const numbers = distinct(scored.flatMap((part) => part.scored.map(([model]) => model))).sort((a, b) => a - b);
    const models = numbers.map((model) => [address.keyOf(index.models[model]), modelName(model)]);
    fill("model0", models, asked, best(scored).A);
    fill("model1", [["", "none"], ...models], asked, value("model0") === best(scored).A ? best(scored).B : "");
    const found = await Promise.all(entries.map(cases.partOf)).catch(fail);
    if (!found || mine !== turn) return false;
    parts = found;
    for (const part of parts) part.chosen = [0, 1].map((side) => chosenOf(part, value(`model${side}`)));
    fillFilters(asked);
    const names = new Map([["", ""], ...models]);
    panel.show(parts, [0, 1].map((side) => names.get(value(`model${side}`))), asked);
    tellOrigin();
    arrange();
    paint();
    return true;
  }

  function chosenOf(part, key) {
    return part.scorings.find((s) => address.keyOf(index.models[s.model]) === key && s.detector === value("detector"));
  }

  function allCases() {
    return parts.flatMap((part) => part.cases);
  }

  function fillFilters(asked) {
    const names = distinct(allCases().flatMap((one) => one.defects)).sort();
    fill("defect", [["all", "all"], ["normal", "normal"], ["anomalous", "anomalous"], ...names.map((n) => [`class ${n}`, n])], asked);
    const two = sides() === 2;
    const named = (choices, hidden) => Object.entries(choices).filter(([key]) => two || !hidden.includes(key)).map(([key, [name]]) => [key, name]);
    fill("error", named(cases.FILTERS, ["differ"]), asked);
    fill("order", named(cases.ORDERS, ["score1", "ranks"]), asked);
  }

  function moved(kind) {
    panel.update();
    if (kind === "image") {
      if (value("error") === "all" && value("order") !== "error") gallery.retell();
      else arrange();
    }
    if (kind === "pixel") gallery.paint(look());
    detail.update();
    count();
  }

  function arrange() {
    const chosen = { defect: value("defect"), error: value("error"), order: value("order"), direction: Number(value("direction")) };
    document.body.classList.toggle("two", sides() === 2);
    gallery.arrange(cases.selected(allCases(), chosen), sides());
    detail.update();
    count();
  }

  /** Tell how many images are shown and what each side makes of all; the state has changed. */
  function count() {
    const all = allCases();
    const errors = [0, 1].slice(0, sides()).map((side) => {
      const said = all.map((one) => cases.judged(one, side)?.verdict);
      const of = (verdict) => said.filter((s) => s === verdict).length;
      return ` · ${"AB"[side]}: ${of("missed")} missed, ${of("false alarm")} false alarms`;
    });
    find("count").textContent = `${find("gallery").children.length} of ${all.length} images${errors.join("")}`;
    remember();
  }

  function paint() {
    find("legend").hidden = value("mode") !== "decisions";
    gallery.paint(look());
    detail.update();
    remember();
  }

  function fade() {
    gallery.fade(Number(value("fade")) / 100);
    detail.fade(Number(value("fade")) / 100);
    remember();
  }

  function shortcut(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, #help")) return;
    const keys = {
      "+": () => panel.step(0, "image", 1, moved),
      "=": () => panel.step(0, "image", 1, moved),
      "-": () => panel.step(0, "image", -1, moved),
      "]": () => panel.step(0, "pixel", 1, moved),
      "[": () => panel.step(0, "pixel", -1, moved),
      h: toggleHeat,
      d: () => put("mode", value("mode") === "decisions" ? "heat" : "decisions"),
      t: () => find("truth").click(),
      f: () => put("error", find("error").options[(find("error").selectedIndex + 1) % find("error").length].value),
      x: swap,
      "?": () => find("help").showModal(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  function toggleHeat() {
    const off = value("mode") !== "heat" || value("fade") === "0";
    put("mode", "heat");
    put("fade", off ? 80 : 0, "input");
  }

  function swap() {
    if (sides() < 2) return;
    [find("model0").value, find("model1").value] = [value("model1"), value("model0")];
    choose();
  }

  function put(id, to, event = "change") {
    find(id).value = to;
    find(id).dispatchEvent(new Event(event));
  }

  /** Options of a select. It gets what is asked (nothing asked: what it had) or, if that is not there, `otherwise`. */
  function fill(id, options, asked, otherwise = options[0][0]) {
    const wanted = asked ? asked[nameOf(id)] : value(id);
    find(id).replaceChildren(...options.map(([key, name]) => new Option(name, key)));
    find(id).value = options.some(([key]) => key === wanted) ? wanted : otherwise;
  }

  /** Give a control of fixed choices what is asked, or what it has at first. */
  function reset(control, asked) {
    const initial = control.defaultValue ?? control.options[0].value;
    control.value = asked ?? initial;
    if (control.value !== asked) control.value = initial;
  }

  function nameOf(id) {
    return Object.keys(CONTROLS).find((name) => CONTROLS[name] === id);
  }

  function distinct(values) {
    return [...new Set(values)];
  }

  function modelName(model) {
    const { pretraining, scope, seed } = index.models[model];
    const several = (key) => distinct(index.models.map((other) => other[key])).length > 1;
    return [pretraining, ...(several("scope") ? [`on ${scope}`] : []), ...(several("seed") ? [`seed ${seed}`] : [])].join(", ");
  }

  function introduce() {
    const { run, dataset, synthetic, size } = index.about;
    find("about").textContent = `Run ${run} on ${dataset}`;
    find("synthetic").hidden = !synthetic;
    find("size").textContent = `${size[0]} × ${size[1]}`;
    document.title = `Defect browser: ${run}`;
  }

  function tellOrigin() {
    const { run, dataset, version } = index.about;
    const lines = [["Run", `${run}, data set ${dataset}, visa ${version}`]];
    for (const part of parts) {
      part.chosen.forEach((scoring, side) => {
        if (scoring) lines.push([`${"AB"[side]}, ${part.object}`, originOf(scoring)]);
      });
    }
    find("made").replaceChildren(...lines.flatMap(([term, text]) => [element("dt", term), element("dd", text)]));
  }

  function originOf({ model, detector, made }) {
    const { scope, seed } = index.models[model];
    const trained = scope === "given" ? "given weights" : `trained on ${scope === "object" ? "the object itself" : scope}, seed ${seed}`;
    const settings = Object.entries(made.settings).map(([name, of]) => `${name} ${JSON.stringify(of)}`);
    const text = [`${modelName(model)} (${trained})`, [detector, ...settings].join(" ")];
    if (made.written) text.push(`scored ${made.written}`);
    if (made.commit) text.push(`commit ${made.commit}`);
    return text.join("; ");
  }

  function element(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function fail(error) {
    find("failure").textContent = error.message;
    find("failure").hidden = false;
  }
})();
