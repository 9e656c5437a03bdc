// @ts-check
// Reading single cells of the map with the pointer or the arrow keys, and the signs that explain the picture.

/**
 * @param {SVGElement} picture
 * @param {Sample} sample
 */
function watchCells(picture, sample) {
  picture.setAttribute("tabindex", "0");
  picture.setAttribute("role", "application");
  picture.setAttribute("aria-roledescription", "map of attention; arrow keys read its cells");
  picture.addEventListener("pointermove", (event) => {
    const bounds = picture.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * sample.size[0];
    const y = ((event.clientY - bounds.top) / bounds.height) * sample.size[1];
    readCell(cellAt(sample.grid, x, y), sample);
  });
  picture.addEventListener("keydown", (event) => moveCell(event, sample));
}

/**
 * @param {Grid} grid
 * @param {number} x In pixels of the image.
 * @param {number} y
 */
function cellAt(grid, x, y) {
  const col = Math.floor((x - grid.x0) / grid.cell_w);
  const row = Math.floor((y - grid.y0) / grid.cell_h);
  return col >= 0 && row >= 0 && col < grid.cols && row < grid.rows ? row * grid.cols + col : -1;
}

/**
 * @param {KeyboardEvent} event
 * @param {Sample} sample
 */
function moveCell(event, sample) {
  const { rows, cols } = sample.grid;
  /** @type {Object<string, number[]>} */
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const at = EXPLORER.cell < 0 ? Math.floor(rows / 2) * cols + Math.floor(cols / 2) : EXPLORER.cell;
  const row = Math.min(Math.max(Math.floor(at / cols) + steps[event.key][0], 0), rows - 1);
  const col = Math.min(Math.max((at % cols) + steps[event.key][1], 0), cols - 1);
  readCell(row * cols + col, sample);
}

/**
 * Say what a cell holds, and frame it.
 * @param {number} cell
 * @param {Sample} sample
 */
function readCell(cell, sample) {
  EXPLORER.cell = cell;
  const old = document.querySelector("#stage .cursor");
  if (old) old.remove();
  const found = EXPLORER.found;
  if (cell < 0 || cell >= sample.grid.rows * sample.grid.cols || found === null) {
    byId("readout").textContent = "";
    return;
  }
  const { cols, x0, y0, cell_w, cell_h } = sample.grid;
  const [row, col] = [Math.floor(cell / cols), cell % cols];
  const [x, y] = [x0 + col * cell_w, y0 + row * cell_h];
  const each = pickedMaps(sample);
  const values = each.heads.map((head, i) => `${headName(head)} ${formatNumber(each.maps[i][cell])}`);
  byId("readout").textContent = `row ${row}, column ${col}; x ${x.toFixed(1)} to ${(x + cell_w).toFixed(1)}, `
    + `y ${y.toFixed(1)} to ${(y + cell_h).toFixed(1)} pixels; combined ${formatNumber(found.combined[cell])}; ${values.join("; ")}`;
  const picture = document.querySelector("#stage svg");
  if (picture) picture.append(s("rect", { x, y, width: cell_w, height: cell_h, class: "cursor", ...strokeOf(sample, "#ffffff", 0.4) }));
}

function legend() {
  const sign = (/** @type {string} */ kind, /** @type {string} */ text) => h("span", { class: "sign" }, h("i", { class: kind }), text);
  return h("p", { class: "legend" }, sign("predicted", "predicted box"), sign("truth", "true box"), sign("outline", "mask"),
    sign("heat", "attention, up to its peak"));
}

function scaleLegend() {
  return h("p", { class: "legend" }, h("span", { id: "scale-low" }), h("i", { class: "scale" }), h("span", { id: "scale-high" }));
}

/** @param {Sample} sample */
function paintScaleLegend(sample) {
  const [low, high] = rangeOf(scoresOf(sample, STATE.score).filter((_, head) => !hasNoMap(sample, head)));
  byId("scale-low").textContent = `${DATA.scoreNames[STATE.score]} ${formatNumber(low)}`;
  byId("scale-high").textContent = formatNumber(high);
}
