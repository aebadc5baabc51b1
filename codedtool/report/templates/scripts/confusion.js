// The confusion matrix: a row for each class, a column for each class taken for, for any number of classes.
const MOST_NAMES = 40, MOST_NUMBERS = 12, MOST_LETTERS = 18;

// Of more classes, a cell would be smaller than a pixel: marks are at least this part of the matrix wide.
const LEAST_MARK = 1 / 250;
const SHADES = [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1];

const shortened = (name) => (name.length > MOST_LETTERS ? `${name.slice(0, MOST_LETTERS - 1)}…` : name);

/** The width in pixels of the widest text in the matrix's font. */
function widest(texts) {
  const pen = make("canvas", {}).getContext("2d");
  pen.font = "11px system-ui, sans-serif";
  return Math.max(...texts.map((text) => pen.measureText(text).width));
}

function drawConfusion(output) {
  const K = data.classes.length, totals = data.confusion.map((_, k) => takenFor(k).reduce((sum, [, n]) => sum + n, 0));
  const counts = data.confusion.map((_, k) => new Map(takenFor(k)));
  const isNamed = K <= MOST_NAMES, side = K <= MOST_NUMBERS ? 27 : isNamed ? 18 : 640 / K;
  const edge = isNamed ? 12 + Math.ceil(widest(data.classes.map(shortened))) : 0;
  const size = edge + K * side + 2;
  const svg = draw("svg", {viewBox: `0 0 ${size} ${size}`, width: size, height: size, class: isNamed ? "matrix" : "matrix fluid",
    role: "application", "aria-label": `Confusion matrix of ${K} classes. Arrow keys read the cells one by one.`});
  svg.append(draw("rect", {x: edge, y: edge, width: K * side, height: K * side, class: "ground"}));
  // One element for all cells of a shade, so that a thousand classes are quick to draw.
  const shades = SHADES.map(() => []), mark = Math.max(side, K * side * LEAST_MARK), before = edge - (mark - side) / 2;
  counts.forEach((row, i) => row.forEach((images, j) => {
    const shade = SHADES.findIndex((limit) => images / totals[i] <= limit + 1e-9);
    shades[shade].push(`M${+(before + j * side).toFixed(2)} ${+(before + i * side).toFixed(2)}h${mark}v${mark}h-${mark}z`);
  }));
  // Light ones first: where marks overlap, the darker one is seen.
  shades.forEach((cells, i) => {
    if (cells.length) svg.append(draw("path", {class: "shade", "fill-opacity": (0.12 + 0.88 * i / (SHADES.length - 1)).toFixed(2), d: cells.join("")}));
  });
  if (isNamed) {
    data.classes.forEach((name, k) => {
      const at = edge + k * side + side / 2;
      svg.append(draw("text", {x: edge - 6, y: at + 4, "text-anchor": "end"}, shortened(name)),
        draw("text", {x: 0, y: 0, transform: `translate(${at + 4} ${edge - 6}) rotate(-90)`}, shortened(name)));
    });
  }
  if (K <= MOST_NUMBERS) {
    counts.forEach((row, i) => row.forEach((images, j) => {
      const share = images / totals[i];
      svg.append(draw("text", {x: edge + j * side + side / 2, y: edge + i * side + side / 2 + 4, "text-anchor": "middle",
        class: share > 0.4 ? "bright" : ""}, String(images)));
    }));
  }
  pointable(svg, {
    columns: K, rows: K,
    box: (j, i) => [edge + j * side, edge + i * side, side, side],
    find: (x, y) => {
      const j = Math.floor((x - edge) / side), i = Math.floor((y - edge) / side), around = Math.round((mark / side - 1) / 2);
      const near = [];
      for (let row = i - around; row <= i + around; row += 1) {
        for (let column = j - around; column <= j + around; column += 1) {
          if (counts[row]?.has(column)) near.push([Math.hypot(row - i, column - j), column, row]);
        }
      }
      return near.length ? near.sort((one, other) => one[0] - other[0])[0].slice(1) : [j, i];
    },
    tell: (j, i) => {
      const images = counts[i].get(j) ?? 0, share = totals[i] ? ` (${percent(images / totals[i])})` : "";
      return `${data.classes[i]} taken for ${data.classes[j]}: ${images} of ${plural(totals[i], "image")}${share}`;
    },
    open: byId("path-view") ? (j, i) => showPaths(i, i === j ? null : j) : undefined,
  }, output);
  return svg;
}

function startConfusion() {
  const view = byId("confusion-view");
  if (!view || !data.confusion) return;
  const told = make("p", {class: "told", role: "status"}, "Point at a cell, or press an arrow key on the matrix",
    byId("path-view") ? "; Enter compares the paths of its two classes." : ".");
  view.append(make("p", {class: "note"}, "Confusion matrix. A row is a class, a column is the class that its images are taken for. "
    + "The darker a cell, the larger is the share of the row's images."),
  scrolled(drawConfusion(told), "Confusion matrix"), told);
  byId("eval-figures").hidden = true;
}
