// The part "samples": the subNNs that fired for one of the sample images, against codewords.

/** "83.1%", rounded down so that it never reads 100%. */
const roundedDown = (share) => `${(Math.floor(1000 * share) / 10).toFixed(1)}%`;

function sampleLines(sample) {
  const [actual, predicted] = [sample.actual, sample.predicted].map((k) => data.classes[k]);
  const answer = sample.actual === sample.predicted ? `${predicted}, which is right` : `${predicted}, but it is ${actual}`;
  const lines = [`${sample.name}: the network says ${answer}.`];
  if (sample.agreeing !== null) {
    const agree = `${sample.agreeing} of ${sample.path.length} early decoders agree`;
    lines.push(sample.confidence === null ? `${agree}.`
      : `Confidence ${roundedDown(sample.confidence)} (${agree}; measured on ${plural(sample.confidence_images, "validation image")}).`);
  }
  const others = sample.alternatives.map(([k, share]) => `${data.classes[k]} ${(100 * share).toFixed(1)}%`);
  lines.push(`Softmax: ${predicted} ${(100 * sample.probability).toFixed(1)}%${others.length ? `, then ${others.join(", ")}` : ""}.`);
  if (sample.unlike.length) lines.push(`Unlike the training images (${sample.unlike.join("; ")}).`);
  return make("p", {}, lines.join(" "));
}

function sampleCells(sample) {
  const isRight = sample.actual === sample.predicted;
  return data.blocks.map(({name, scheme}, i) => {
    const {codewords} = data.schemes[scheme], {fired, energies} = sample.path[i];
    return energies.map((energy, n) => {
      const [ofActual, ofPredicted] = [sample.actual, sample.predicted].map((k) => codewords[k][n] === "1");
      const ticks = [...(ofActual ? ["left"] : []), ...(ofPredicted && !isRight ? ["right"] : [])];
      const words = [...(ofActual ? [data.classes[sample.actual]] : []), ...(ofPredicted && !isRight ? [data.classes[sample.predicted]] : [])];
      return {mark: fired[n] === "1" ? "fired" : "quiet", ticks,
        text: `block ${name}, subNN ${n}: energy ${energy.toFixed(2)}, ${fired[n] === "1" ? "fired" : "did not fire"}; ${
          words.length ? `on the path of ${words.join(" and ")}` : isRight ? "not on the path" : "on neither path"}`};
    });
  });
}

/** For each block: how many subNNs of the codewords, and how many other ones, fired. */
function firedTable(sample) {
  const classes = [...new Set([sample.actual, sample.predicted])];
  const fired = (of, all) => `${of.length} of ${all}`;
  return makeTable("SubNNs that fired", ["block", "early decoder", ...classes.map((k) => `of the path of ${data.classes[k]}`),
    "of the other subNNs"], data.blocks.map(({name, scheme}, i) => {
    const {codewords} = data.schemes[scheme], part = sample.path[i], length = part.fired.length;
    const either = [...part.fired].map((_, n) => (classes.some((k) => codewords[k][n] === "1") ? "1" : "0")).join("");
    const neither = [...either].map((bit) => (bit === "1" ? "0" : "1")).join("");
    return [name, data.classes[part.decoder],
      ...classes.map((k) => fired(ones(codewords[k], part.fired), ones(codewords[k]).length)),
      fired(ones(neither, part.fired), length - ones(either).length)];
  }));
}

function startSamples() {
  const view = byId("sample-view");
  if (!view || !data.samples.length) return;
  const buttons = [...document.querySelectorAll(".samples button")];
  for (const button of buttons) {
    button.disabled = false;
    button.addEventListener("click", () => {
      choose({image: Number(button.dataset.image)});
      view.scrollIntoView({block: "nearest"});
    });
  }
  view.setAttribute("aria-live", "polite");
  views.push(() => {
    const number = state.image ?? 1, sample = data.samples[number - 1];
    for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.image) === number));
    const message = state.unknownImage === null ? [] : [make("p", {class: "note"}, `There is no sample image ${state.unknownImage}.`)];
    view.replaceChildren(...message, make("h3", {}, `Image ${number}`), sampleLines(sample));
    if (!data.blocks.length) return;
    const [actual, predicted] = [sample.actual, sample.predicted].map((k) => data.classes[k]);
    const told = make("p", {class: "told", role: "status"}, "Point at a square, or press an arrow key on the drawing.");
    const svg = drawNetwork(`SubNNs that fired for image ${number}.`, sampleCells(sample), {fired: "line"}, told);
    svg.setAttribute("data-image", number);
    const isRight = sample.actual === sample.predicted;
    view.append(legend([["fired", "fired"], ["quiet", "did not fire"],
      ["quiet", `in the codeword of ${actual}${isRight ? "" : ", the true class"}`, ["left"]],
      ...(isRight ? [] : [["quiet", `in the codeword of ${predicted}, the answer`, ["right"]]])]),
    beside(svg, `SubNNs that fired for image ${number}`, told, firedTable(sample)));
    if (!byId("path-view")) return;
    const button = make("button", {type: "button"}, isRight ? `Show the path of ${actual}` : `Compare the paths of ${actual} and ${predicted}`);
    button.addEventListener("click", () => showPaths(sample.actual, isRight ? null : sample.predicted));
    view.append(make("p", {}, button));
  });
}
