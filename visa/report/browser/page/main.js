"use strict";
// Controls hold the state of the page: they are read, and what depends on them is shown anew.
(async () => {
  const { cases, panel, gallery, detail } = visaBrowser;
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
  detail.make(() => ({ sides: sides(), look: look() }));
  fill("object", [...(objects().length > 1 ? [["", "all objects"]] : []), ...objects().map((name) => [name, name])], objects()[0]);
  for (const id of ["object", "setup", "detector", "model0", "model1"]) find(id).addEventListener("change", choose);
  for (const id of ["order", "direction", "defect", "error"]) find(id).addEventListener("change", arrange);
  for (const id of ["mode", "truth"]) find(id).addEventListener("change", paint);
  find("fade").addEventListener("input", fade);
  find("panel").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", shortcut);
  find("ask").addEventListener("click", () => find("help").showModal());
  find("help-close").addEventListener("click", () => find("help").close());
  fade();
  await choose();
  document.body.dataset.ready = "yes";

  function objects() {
    return [...new Set(index.parts.map((part) => part.object))];
  }

  function sides() {
    return value("model1") === "" ? 1 : 2;
  }

  function look() {
    return { mode: value("mode"), truth: find("truth").checked };
  }

  /** Fill the choices that depend on each other, load what is chosen, and show it. */
  async function choose() {
    const mine = (turn += 1);
    let entries = index.parts.filter((part) => !value("object") || part.object === value("object"));
    fill("setup", distinct(entries.map((part) => part.setup)).map((name) => [name, index.about.setups[name] ?? name]));
    entries = entries.filter((part) => part.setup === value("setup"));
    const scored = entries.flatMap((part) => part.scored);
    const detectors = distinct(scored.map(([, detector]) => detector));
    fill("detector", detectors.map((name) => [name, index.about.detectors[name] ?? name]), detectors.find((d) => d === "patchcore"));
    const models = distinct(scored.filter(([, d]) => d === value("detector")).map(([model]) => model)).sort((a, b) => a - b);
    fill("model0", models.map((model) => [model, modelName(model)]), models.at(-1));
    fill("model1", [["", "none"], ...models.map((model) => [model, modelName(model)])], "");
    const found = await Promise.all(entries.map(cases.partOf)).catch(fail);
    if (!found || mine !== turn) return;
    parts = found;
    for (const part of parts) part.chosen = [0, 1].map((side) => chosenOf(part, value(`model${side}`)));
    fillFilters();
    panel.show(parts, [0, 1].map((side) => value(`model${side}`) && modelName(value(`model${side}`))));
    tellOrigin();
    arrange();
    paint();
  }

  function chosenOf(part, model) {
    return part.scorings.find((s) => model !== "" && s.model === Number(model) && s.detector === value("detector"));
  }

  function fillFilters() {
    const all = parts.flatMap((part) => part.cases);
    const names = distinct(all.flatMap((one) => one.defects)).sort();
    fill("defect", [["all", "all"], ["normal", "normal"], ["anomalous", "anomalous"], ...names.map((n) => [`class ${n}`, n])]);
    const two = sides() === 2;
    const named = (choices, hidden) => Object.entries(choices).filter(([key]) => two || !hidden.includes(key)).map(([key, [name]]) => [key, name]);
    fill("error", named(cases.FILTERS, ["differ"]));
    fill("order", named(cases.ORDERS, ["score1", "ranks"]));
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
    const all = parts.flatMap((part) => part.cases);
    document.body.classList.toggle("two", sides() === 2);
    gallery.arrange(cases.selected(all, chosen), sides());
    detail.update();
    count();
  }

  function count() {
    const all = parts.flatMap((part) => part.cases);
    const said = all.map((one) => cases.judged(one, 0)?.verdict);
    const of = (verdict) => said.filter((s) => s === verdict).length;
    const shown = find("gallery").children.length;
    find("count").textContent = `${shown} of ${all.length} images · A: ${of("missed")} missed, ${of("false alarm")} false alarms`;
  }

  function paint() {
    find("legend").hidden = value("mode") !== "decisions";
    gallery.paint(look());
    detail.update();
  }

  function fade() {
    gallery.fade(Number(value("fade")) / 100);
    detail.fade(Number(value("fade")) / 100);
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

  /** Options of a select; what was chosen stays chosen if it is still there, else `first` is. */
  function fill(id, options, first = options[0]?.[0]) {
    const before = find(id).length ? value(id) : undefined;
    find(id).replaceChildren(...options.map(([key, name]) => new Option(name, key)));
    const kept = options.some(([key]) => String(key) === before);
    find(id).value = kept ? before : first ?? options[0][0];
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
