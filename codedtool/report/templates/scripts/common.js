"use strict";

// The page's data; codedtool/report/rendering.py (page_data) says what they hold.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** Make an element of HTML. Texts among `children` become text, never markup. */
function make(kind, attributes = {}, ...children) {
  return filled(document.createElement(kind), attributes, children);
}

/** Make an element of SVG. */
function draw(kind, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", kind), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Make a drawing of the given size in CSS pixels, inside a box that scrolls where the screen is narrower. */
function scrolled(svg, label) {
  return make("div", {class: "scroll", role: "region", "aria-label": label}, svg);
}

/** A drawing with the text below it, and tables beside it where the screen is wide enough. */
function beside(svg, label, told, ...tables) {
  return make("div", {class: "beside"}, make("div", {}, scrolled(svg, label), told), make("div", {}, ...tables));
}

const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(2)}%`;

/** Columns, from 0, where both codewords have a 1; with one codeword, where it has. */
function ones(word, other = word) {
  return [...word].flatMap((bit, n) => (bit === "1" && other[n] === "1" ? [n] : []));
}

/** Mean energy of subNN `n` of coded block `i` for the validation images of class `k`. */
const meanEnergy = (i, k, n) => data.energies[i][k][n] / 100;

/** The row of class `k` of the confusion matrix: [class taken for, images] pairs, the most frequent first. */
function takenFor(k) {
  const row = data.confusion[k], found = [];
  for (let i = 0; i < row.length; i += 2) found.push([row[i], row[i + 1]]);
  return found.sort((one, other) => other[1] - one[1] || one[0] - other[0]);
}
