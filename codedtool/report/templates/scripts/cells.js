/** Let a reader point at the cells of a drawing with the mouse, a finger or the arrow keys.
 *
 * grid: {columns, rows, box(column, row) -> [x, y, width, height] or null if there is no such cell,
 *   find(x, y) -> [column, row], tell(column, row) -> text or element, open(column, row): called on Enter; optional}.
 * output: the element that shows what `tell` gives for the cell.
 */
function pointable(svg, grid, output) {
  const cursor = draw("rect", {class: "cursor", fill: "none", visibility: "hidden"});
  let at = null;
  svg.append(cursor);
  svg.setAttribute("tabindex", "0");
  function point(column, row) {
    const box = column >= 0 && row >= 0 && column < grid.columns && row < grid.rows ? grid.box(column, row) : null;
    if (!box) return;
    at = [column, row];
    ["x", "y", "width", "height"].forEach((name, i) => cursor.setAttribute(name, box[i]));
    cursor.setAttribute("visibility", "visible");
    output.replaceChildren(grid.tell(column, row));
  }
  function cellOf(event) {
    const {a, d, e, f} = svg.getScreenCTM(), x = (event.clientX - e) / a, y = (event.clientY - f) / d;
    return grid.find(x, y);
  }
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  svg.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (step) {
      event.preventDefault();
      if (at) point(at[0] + step[0], at[1] + step[1]);
      else point(0, 0);
      // On a narrow screen the drawing is wider than its box.
      cursor.scrollIntoView({block: "nearest", inline: "nearest"});
    } else if (event.key === "Enter" && at && grid.open) {
      grid.open(...at);
    }
  });
  for (const kind of ["pointermove", "click"]) svg.addEventListener(kind, (event) => point(...cellOf(event)));
}
