// Tables are sorted by their headings. A number in a cell may be followed by its unit, by "± 0.1" or by "of 12".
const NUMBER = /^([<>≤≥~]?\s*)([-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?)(.*)$/i;
const EMPTY = new Set(["", "–", "-", "nan"]);

/** The values by which the cells of a column are sorted: numbers, if all cells that have a text are numbers. */
function sortValues(texts) {
  const filledIn = texts.filter((text) => !EMPTY.has(text.toLowerCase()));
  const found = filledIn.map((text) => NUMBER.exec(text));
  const units = new Set(found.map((match) => match && match[3].trim().replace(/^(±|of ).*/, "$1")));
  if (found.includes(null) || units.size > 1) return texts.map((text) => (EMPTY.has(text.toLowerCase()) ? null : text));
  return texts.map((text) => {
    if (EMPTY.has(text.toLowerCase())) return null;
    return Number(NUMBER.exec(text)[2].replaceAll(",", "").replace("−", "-"));
  });
}

/** Compare texts with the numbers in them by value: s3.2 before s3.10, margin:0.15 before margin:0.2. */
function compareTexts(one, other) {
  const [left, right] = [one, other].map((text) => text.split(/(0\.\d+|\d+)/));
  for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
    const order = i % 2 ? Number(left[i]) - Number(right[i]) : left[i].localeCompare(right[i], "en");
    if (order) return order;
  }
  return left.length - right.length;
}

/** Sort the rows of a table by a column; cells without a value come last in either direction. */
function sortTable(table, column, descending) {
  const body = table.tBodies[0], rows = [...body.rows];
  const values = sortValues(rows.map((row) => row.cells[column].textContent.trim()));
  const order = rows.map((_, i) => i).sort((i, j) => {
    const [one, other] = [values[i], values[j]];
    if (one === null || other === null) return (one === null) - (other === null) || i - j;
    const found = typeof one === "number" ? one - other : compareTexts(one, other);
    return (descending ? -found : found) || i - j;
  });
  body.append(...order.map((i) => rows[i]));
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    if (i === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

/** Give the headings of a table buttons that sort it: the first press ascending, the next one descending. */
function makeSortable(table) {
  if (!table.tHead || table.tBodies[0].rows.length < 2 || table.querySelector("thead button")) return;
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = make("button", {type: "button", class: "sort"}, ...cell.childNodes);
    if (!button.textContent.trim()) button.setAttribute("aria-label", "name of the row");
    button.addEventListener("click", () => {
      sortTable(table, column, cell.getAttribute("aria-sort") === "ascending");
    });
    cell.append(button);
  });
}

/** Make a table in a box that scrolls. Cells are texts or elements; the first one of a row is its heading. */
function makeTable(caption, header, rows) {
  const line = (cells, kinds) => make("tr", {}, ...cells.map((cell, i) => make(...kinds(i), cell)));
  const table = make("table", {}, make("caption", {}, caption),
    make("thead", {}, line(header, () => ["th", {scope: "col"}])),
    make("tbody", {}, ...rows.map((row) => line(row, (i) => (i ? ["td", {}] : ["th", {scope: "row"}])))));
  makeSortable(table);
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption}, table);
}
