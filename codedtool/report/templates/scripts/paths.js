// The part "paths": the path of a class, alone or beside that of another class.
const MOST_CONFUSED = 8;

/** A text field that filters a list of all classes. `pick` is called with the number of a class, or null for `none`. */
function classChooser(id, label, none, pick) {
  const list = make("select", {id});
  const filter = make("input", {type: "search", id: `${id}-filter`, autocomplete: "off", placeholder: "type to filter",
    "aria-label": `Filter: ${label}`});
  const found = make("span", {class: "note", role: "status"});
  let chosen = null;
  function fill() {
    const text = filter.value.trim().toLowerCase();
    const shown = data.classes.flatMap((name, k) => (name.toLowerCase().includes(text) ? [k] : []));
    list.replaceChildren(...(none === null ? [] : [make("option", {value: ""}, none)]),
      ...(chosen === null || shown.includes(chosen) ? [] : [make("option", {value: chosen}, data.classes[chosen])]),
      ...shown.map((k) => make("option", {value: k}, data.classes[k])));
    list.value = chosen === null ? "" : String(chosen);
    found.textContent = text === "" ? "" : `${shown.length} of ${data.classes.length} classes`;
    return shown;
  }
  filter.addEventListener("input", fill);
  filter.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const shown = fill(), text = filter.value.trim().toLowerCase();
    const exact = shown.find((k) => data.classes[k].toLowerCase() === text);
    if (text !== "" && shown.length) pick(exact ?? shown[0]);
  });
  list.addEventListener("change", () => pick(list.value === "" ? null : Number(list.value)));
  const box = make("div", {class: "chooser"}, make("label", {for: id}, label), filter, list, found);
  return {box, show(k) {
    if (k !== null && k !== chosen) filter.value = "";
    chosen = k;
    fill();
  }};
}

/** The squares of two codewords (the second may be null) in every block. */
function pathCells(one, other) {
  const owners = {own: `on the path of ${data.classes[one]}`, other: `on the path of ${data.classes[other]}`,
    shared: "on both paths", none: other === null ? "not on the path" : "on neither path"};
  return data.blocks.map(({name, scheme}, i) => {
    const {codewords} = data.schemes[scheme];
    return [...codewords[one]].map((bit, n) => {
      const isOwn = bit === "1", isOthers = other !== null && codewords[other][n] === "1";
      const mark = isOwn ? (isOthers ? "shared" : "own") : isOthers ? "other" : "none";
      const energy = data.energies ? `; mean energy for ${data.classes[one]}: ${meanEnergy(i, one, n).toFixed(2)}` : "";
      return {mark, text: `block ${name}, subNN ${n}: ${owners[mark]}${energy}`};
    });
  });
}

/** How many subNNs two classes share in a scheme, and which. */
function sharedText(scheme, one, other) {
  const {codewords} = data.schemes[scheme], shared = ones(codewords[one], codewords[other]);
  return `${shared.length} of ${ones(codewords[one]).length}${shared.length ? ` (${shared.join(", ")})` : ""}`;
}

function confusedTable(one, other) {
  const name = data.classes[one], row = takenFor(one);
  const total = row.reduce((sum, [, images]) => sum + images, 0);
  const others = row.filter(([k]) => k !== one), shown = others.slice(0, MOST_CONFUSED);
  if (!total) return make("p", {}, `There is no validation image of ${name}.`);
  if (!shown.length) return make("p", {}, `None of the ${plural(total, "validation image")} of ${name} is taken for another class.`);
  const more = others.length > shown.length ? `: the most frequent ${shown.length} of ${others.length}` : "";
  return makeTable(`Wrong answers for the ${plural(total, "validation image")} of ${name}${more}`,
    ["taken for", "images", "%", ...data.schemes.map(({place}) => `shared subNNs, ${place}`)],
    shown.map(([k, images]) => {
      const button = make("button", {type: "button", class: "pick", "data-class": k, "aria-pressed": String(k === other)},
        data.classes[k]);
      button.addEventListener("click", () => {
        choose({class: one, with: k === other ? null : k});
        document.querySelector(`#path-view button.pick[data-class="${k}"]`).focus();
      });
      return [button, String(images), (100 * images / total).toFixed(2),
        ...data.schemes.map((_, scheme) => sharedText(scheme, one, k))];
    }));
}

function codewordTable(one, other) {
  const code = (text) => make("code", {}, text);
  return makeTable(`Codewords of ${data.classes[one]} and ${data.classes[other]}`,
    ["coded", data.classes[one], data.classes[other], "shared subNNs", "positions that differ"],
    data.schemes.map(({place, codewords}, scheme) => [place, code(codewords[one]), code(codewords[other]),
      sharedText(scheme, one, other),
      String([...codewords[one]].filter((bit, n) => bit !== codewords[other][n]).length)]));
}

function startPaths() {
  const view = byId("path-view");
  if (!view) return;
  const choosers = [
    classChooser("class-chooser", "Class", null, (k) => choose({class: k, with: null})),
    classChooser("with-chooser", "Compare with", "no other class", (k) => choose({class: state.class ?? 0, with: k})),
  ];
  const message = make("p", {class: "note", role: "status"}), picture = make("div");
  view.append(make("div", {class: "choosers"}, ...choosers.map(({box}) => box)), message, picture);
  views.push(() => {
    const one = state.class ?? 0, other = state.with === one ? null : state.with, name = data.classes[one];
    choosers[0].show(one);
    choosers[1].show(other);
    message.textContent = state.unknown === null ? "" : `There is no class called ${state.unknown}.`;
    const told = make("p", {class: "told", role: "status"}, "Point at a square, or press an arrow key on the drawing.");
    const label = other === null ? `Path of ${name}.` : `Paths of ${name} and ${data.classes[other]}.`;
    const svg = drawNetwork(label, pathCells(one, other), {own: "line", shared: "line", other: "line dashed"}, told);
    svg.setAttribute("data-class", name);
    if (other !== null) svg.setAttribute("data-with", data.classes[other]);
    picture.replaceChildren(
      legend(other === null ? [["own", `on the path of ${name}`], ["none", "not on the path"]] : [
        ["own", `on the path of ${name} alone`], ["shared", "on both paths"],
        ["other", `on the path of ${data.classes[other]} alone`], ["none", "on neither"]]),
      beside(svg, label, told, ...(other === null ? [] : [codewordTable(one, other)]), confusedTable(one, other)));
  });
}
