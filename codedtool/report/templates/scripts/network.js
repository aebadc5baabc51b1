// The drawing of the coded blocks: a column for each block, a square for each subNN, and a circle for the sum after it.
const CELL = 16, PITCH = 20, LEFT = 26, TOP = 20;

// Few blocks fill a telephone's screen; of many, the drawing scrolls.
const STEP = Math.max(48, Math.min(110, Math.floor(296 / Math.max(1, data.blocks.length))));

/** Draw the blocks.
 *
 * cells: for each block and subNN, {mark, text, ticks}: the kind and ticks of the square (see `square`), its description.
 * lines: kinds of squares that are joined to the sums -> class of the lines.
 */
function drawNetwork(label, cells, lines, output) {
  const rows = Math.max(...cells.map((column) => column.length));
  const width = LEFT + cells.length * STEP + 14, height = TOP + rows * PITCH + 6;
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, class: "network", role: "application",
    "aria-label": `${label} Arrow keys read the subNNs one by one.`});
  const left = (i) => LEFT + i * STEP + (STEP - CELL) / 2, top = (n) => TOP + n * PITCH;
  const middle = TOP + (rows * PITCH - (PITCH - CELL)) / 2;
  for (let n = 0; n < rows; n += 1) {
    svg.append(draw("text", {x: LEFT - 6, y: top(n) + 12, "text-anchor": "end"}, String(n)));
  }
  cells.forEach((column, i) => column.forEach(({mark}, n) => {
    if (!(mark in lines)) return;
    const y = top(n) + CELL / 2, x = left(i), begin = LEFT + i * STEP + 4, end = begin + STEP - 4;
    svg.append(draw("path", {class: lines[mark], d:
      `M${begin} ${middle}C${begin + 9} ${middle} ${x - 9} ${y} ${x} ${y}M${x + CELL} ${y}C${x + CELL + 9} ${y} ${end - 9} ${middle} ${end} ${middle}`}));
  }));
  cells.forEach((column, i) => {
    svg.append(draw("text", {x: left(i) + CELL / 2, y: 12, "text-anchor": "middle"}, data.blocks[i].name));
    svg.append(draw("circle", {class: "sum", cx: LEFT + (i + 1) * STEP + 2, cy: middle, r: 4}));
    column.forEach(({mark, text, ticks}, n) => {
      const cell = square(mark, left(i), top(n), ticks);
      cell.append(draw("title", {}, text));
      for (const [key, value] of [["block", data.blocks[i].name], ["subnn", n], ["mark", mark]]) {
        cell.setAttribute(`data-${key}`, value);
      }
      svg.append(cell);
    });
  });
  svg.append(draw("circle", {class: "sum", cx: LEFT + 2, cy: middle, r: 4}));
  pointable(svg, {
    columns: cells.length, rows,
    box: (i, n) => (n < cells[i].length ? [left(i) - 2, top(n) - 2, CELL + 4, CELL + 4] : null),
    find: (x, y) => [Math.floor((x - LEFT) / STEP), Math.floor((y - TOP + 2) / PITCH)],
    tell: (i, n) => cells[i][n].text,
  }, output);
  return svg;
}

/** Draw a square of a kind. Kinds differ in shape, not in colour alone. Ticks: triangles at its "left" or "right". */
function square(mark, x, y, ticks = []) {
  const group = draw("g", {class: `subnn ${mark}`});
  group.append(draw("rect", {x: x + 1, y: y + 1, width: CELL - 2, height: CELL - 2, rx: 3}));
  const [cx, cy] = [x + CELL / 2, y + CELL / 2];
  if (mark === "shared") {
    group.append(draw("path", {d: `M${cx} ${cy - 5}l5 5l-5 5l-5 -5z`}));
  } else if (mark === "other") {
    group.append(draw("circle", {cx, cy, r: 3}));
  }
  for (const tick of ticks) {
    const [base, tip] = tick === "left" ? [x - 7, x - 1] : [x + CELL + 7, x + CELL + 1];
    group.append(draw("path", {class: `tick ${tick}`, d: `M${base} ${cy - 5}L${tip} ${cy}L${base} ${cy + 5}z`}));
  }
  return group;
}

/** A list that explains marks: [kind of square, text, ticks] each; ticks may be left out. */
function legend(entries) {
  const item = (shape, text) => make("li", {}, draw("svg", {viewBox: `-8 0 ${CELL + 16} ${CELL}`, width: CELL + 16,
    height: CELL, "aria-hidden": "true"}, shape), ` ${text}`);
  return make("ul", {class: "legend"}, ...entries.map(([mark, text, ticks]) => item(square(mark, 0, 0, ticks), text)),
    item(draw("circle", {class: "sum", cx: CELL / 2, cy: CELL / 2, r: 4}), "sum of a block's subNNs"));
}
