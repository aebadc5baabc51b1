// What the reader has chosen stands in the page's address, as #class=cat&with=dog or #image=3, so that it can be linked.
// Classes are numbers here and names in the address; images are counted from 1.
const state = {class: null, with: null, image: null, unknown: null, unknownImage: null};
const views = [];

/** The number of the class called `text`; a text that is no name is read as a number. Null: there is none. */
function classNumber(text) {
  const found = data.classes.indexOf(text);
  if (found >= 0) return found;
  return /^\d+$/.test(text) && Number(text) < data.classes.length ? Number(text) : null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Read the address. Returns the section to show, or null if the address has no choice. */
function readAddress() {
  const given = {};
  for (const part of location.hash.slice(1).split("&")) {
    const at = part.indexOf("=");
    if (at > 0) given[part.slice(0, at)] = decoded(part.slice(at + 1));
  }
  let section = null;
  if (given.class !== undefined && byId("path-view")) {
    state.class = classNumber(given.class);
    state.with = given.with === undefined ? null : classNumber(given.with);
    section = "paths";
    state.unknown = [given.class, given.with].find((text) => text !== undefined && classNumber(text) === null) ?? null;
  }
  if (given.image !== undefined && byId("sample-view")) {
    const number = Number(given.image);
    const isThere = Number.isInteger(number) && number >= 1 && number <= data.samples.length;
    state.image = isThere ? number : null;
    state.unknownImage = isThere ? null : given.image;
    section = "samples";
  }
  return section;
}

/** Choose something, write it to the address, and show it. */
function choose(changes) {
  Object.assign(state, {unknown: null, unknownImage: null}, changes);
  const parts = [];
  if (state.class !== null) parts.push(`class=${encodeURIComponent(data.classes[state.class])}`);
  if (state.class !== null && state.with !== null) parts.push(`with=${encodeURIComponent(data.classes[state.with])}`);
  if (state.image !== null) parts.push(`image=${state.image}`);
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    // A browser that forbids it shows the choice all the same.
  }
  showAll();
}

function showAll() {
  for (const view of views) view();
}

/** Choose a class, and scroll to its path. */
function showPaths(one, other) {
  choose({class: one, with: other});
  byId("paths").scrollIntoView();
  byId("class-chooser").focus({preventScroll: true});
}
