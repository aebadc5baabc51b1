/** Show what the address asks for, and go to it. */
function follow() {
  const section = readAddress();
  showAll();
  if (section && byId(section)) byId(section).scrollIntoView();
}

for (const table of document.querySelectorAll("section > .scroll table")) makeSortable(table);
startPaths();
startSamples();
startConfusion();
startClasses();
window.addEventListener("hashchange", follow);
follow();
