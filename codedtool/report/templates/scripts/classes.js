// The part "classes": every class with its path and the mean energies of its validation images.
function drawEnergies(details) {
  const box = details.querySelector(".path");
  if (!box || box.firstChild || !data.energies) return;
  const k = Number(details.dataset.class), side = 22, left = 52;
  const most = Math.max(...data.energies.map((rows) => rows[k].length));
  const width = left + most * side + 4, height = data.blocks.length * (side + 6) + 22;
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img"});
  const lines = data.blocks.map(({name}, i) => `${name}: ${data.energies[i][k].map((_, n) => meanEnergy(i, k, n)).join(" ")}`);
  svg.append(draw("title", {}, `Mean energies by subNN. ${lines.join("; ")}`));
  for (let n = 0; n < most; n += 1) {
    svg.append(draw("text", {x: left + n * side + side / 2, y: 12, "text-anchor": "middle"}, String(n)));
  }
  data.blocks.forEach(({name, scheme}, i) => {
    const y = 18 + i * (side + 6), word = data.schemes[scheme].codewords[k];
    svg.append(draw("text", {x: 0, y: y + 15}, name));
    data.energies[i][k].forEach((_, n) => {
      const energy = meanEnergy(i, k, n), isOn = word[n] === "1";
      svg.append(draw("rect", {
        x: left + n * side + 2, y: y + 2, width: side - 4, height: side - 4, rx: 3,
        fill: `rgba(0, 84, 147, ${Math.min(1, 0.04 + 0.96 * energy).toFixed(3)})`,
        stroke: isOn ? "#d55e00" : "#c5cbd2", "stroke-width": isOn ? 2.5 : 1,
      }, draw("title", {}, `block ${name}, subNN ${n}: energy ${energy}, codeword ${isOn ? 1 : 0}`)));
    });
  });
  box.append(svg);
}

function openClass(details) {
  drawEnergies(details);
  for (const table of details.querySelectorAll("table")) makeSortable(table);
}

function startClasses() {
  const all = [...document.querySelectorAll("#classes details")];
  if (!all.length) return;
  for (const details of all) details.addEventListener("toggle", () => { if (details.open) openClass(details); });
  const filter = byId("filter"), found = byId("found");
  filter.addEventListener("input", () => {
    const text = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const details of all) {
      details.hidden = text !== "" && !details.dataset.name.includes(text);
      shown += details.hidden ? 0 : 1;
    }
    found.textContent = text === "" ? "" : `${shown} of ${all.length} classes`;
  });
  window.addEventListener("beforeprint", () => { for (const details of all) { details.open = true; openClass(details); } });
  all[0].open = true;
}
