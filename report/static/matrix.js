// @ts-check
// All heads of a model as a matrix of layers and heads, coloured by a score.

/** Anchors of a scale from dark blue to yellow that colour-blind readers can order, too. */
const SCALE = [[0, 32, 76], [43, 63, 107], [86, 92, 108], [124, 123, 120], [163, 156, 117], [208, 191, 101], [255, 233, 69]];

/** @param {number} share */
function scaleColor(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = SCALE[Math.floor(at)];
  const high = SCALE[Math.ceil(at)];
  return `rgb(${low.map((value, i) => Math.round(value + (high[i] - value) * (at % 1))).join(", ")})`;
}

/**
 * The lowest and highest value, of those that are there.
 * @param {(number | null)[]} values
 * @returns {[number, number]}
 */
function rangeOf(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 0];
}

/**
 * Scores of the heads of a sample, or of the data set.
 * @param {Sample | null} sample
 * @param {string} score
 * @returns {(number | null)[]}
 */
function scoresOf(sample, score) {
  if (score === "frequency") return DATA.dataset.frequency || [];
  return (sample && sample.scores[score]) || [];
}

/**
 * @param {HTMLElement} place
 * @param {(head: number) => void} pick
 */
function startMatrix(place, pick) {
  const cells = Array.from({ length: DATA.numLayers * DATA.numHeads }, (_, head) => h("td", {
    role: "gridcell", tabindex: -1, "data-head": head, class: DATA.numHeads > 16 ? "small" : "", onclick: () => pick(head),
  }));
  const body = h("tbody", {});
  for (let layer = 0; layer < DATA.numLayers; layer += 1) {
    const row = cells.slice(layer * DATA.numHeads, (layer + 1) * DATA.numHeads);
    body.append(h("tr", { role: "row" }, h("th", { role: "rowheader", scope: "row" }, `L${layer}`), ...row));
  }
  const head = h("tr", { role: "row" }, h("td", {}));
  for (let i = 0; i < DATA.numHeads; i += 1) head.append(h("th", { role: "columnheader", scope: "col" }, `${i}`));
  const table = h("table", {
    class: "matrix", role: "grid", "aria-label": "Heads, layer by layer", "aria-multiselectable": true,
    onkeydown: (event) => matrixKey(event, cells, pick),
  }, h("thead", {}, head), body);
  put(place, table);
  if (cells.length) cells[0].tabIndex = 0;
  return cells;
}

/**
 * Arrows move, Enter and space pick.
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} cells
 * @param {(head: number) => void} pick
 */
function matrixKey(event, cells, pick) {
  const at = cells.indexOf(/** @type {HTMLElement} */ (event.target));
  /** @type {Object<string, number>} */
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -DATA.numHeads, ArrowDown: DATA.numHeads };
  if (at < 0) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    pick(at);
  } else if (event.key in steps) {
    event.preventDefault();
    const next = at + steps[event.key];
    if (next >= 0 && next < cells.length) focusCell(cells, next);
  }
}

/**
 * @param {HTMLElement[]} cells
 * @param {number} next
 */
function focusCell(cells, next) {
  for (const cell of cells) cell.tabIndex = -1;
  cells[next].tabIndex = 0;
  cells[next].focus();
}

/**
 * Colour the cells by the chosen score, ring the heads that the run used, mark those that are picked or filtered.
 * @param {HTMLElement[]} cells
 * @param {Sample} sample
 */
function paintMatrix(cells, sample) {
  const values = scoresOf(sample, STATE.score);
  const [low, high] = rangeOf(values.filter((_, head) => !hasNoMap(sample, head)));
  const picked = new Set(STATE.heads);
  cells.forEach((cell, head) => {
    const value = values[head];
    const empty = hasNoMap(sample, head);
    cell.style.background = value === null || value === undefined || empty ? "" : scaleColor(high > low ? (value - low) / (high - low) : 0.5);
    cell.className = matrixClass(sample, head, picked, empty);
    cell.setAttribute("aria-selected", String(picked.has(head)));
    cell.title = describeHead(sample, head);
    cell.setAttribute("aria-label", cell.title);
  });
}

/**
 * @param {Sample} sample
 * @param {number} head
 * @param {Set<number>} picked
 * @param {boolean} empty
 */
function matrixClass(sample, head, picked, empty) {
  return [
    DATA.numHeads > 16 ? "small" : "", picked.has(head) ? "picked" : "", sample.heads.includes(head) ? "found" : "",
    sample.why[head] !== "0" ? "filtered" : "", empty ? "empty" : "", hasMap(sample, head) ? "" : "unheld",
  ].join(" ").trim();
}

/**
 * Whether the model gave no map there, such as in a layer without attention.
 * @param {Sample} sample
 * @param {number} head
 */
function hasNoMap(sample, head) {
  return DATA.emptyLayers.includes(Math.floor(head / DATA.numHeads)) || sample.scores.sum[head] === null;
}

const CODED = new Set(DATA.coded);

/**
 * @param {Sample} sample
 * @param {number} head
 */
function hasMap(sample, head) {
  return CODED.has(head) || isExact(sample, head);
}

/**
 * @param {Sample} sample
 * @param {number} head
 */
function describeHead(sample, head) {
  const scores = Object.entries(DATA.scoreNames).map(([key, name]) => `${name} ${formatNumber(scoresOf(sample, key)[head])}`);
  const notes = [
    sample.heads.includes(head) ? "used by the run" : "",
    sample.why[head] !== "0" ? `filtered: ${DATA.reasons[Number(sample.why[head])]}` : "",
    hasMap(sample, head) ? (isExact(sample, head) ? "" : "map in 8 bits") : "map not kept in this file",
  ].filter(Boolean);
  return [headName(head), ...scores, ...notes].join("; ");
}
