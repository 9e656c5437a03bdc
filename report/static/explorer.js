// @ts-check
// One sample: pick heads, see map, mask and box change with the rules.

/** @type {{cells: HTMLElement[], found: Localized | null, cell: number, drawn: string}} */
const EXPLORER = { cells: [], found: null, cell: -1, drawn: "" };

/** @param {HTMLElement} place */
function startExplorer(place) {
  put(place,
    h("div", { class: "bar" }, h("button", { type: "button", id: "previous", onclick: () => step(-1) }, "Previous"),
      sampleField(), h("button", { type: "button", id: "next", onclick: () => step(1) }, "Next")),
    h("div", { class: "columns" },
      h("section", { class: "stage", "aria-label": "Picture" }, h("h2", { id: "sample-phrase" }), h("div", { id: "stage" }),
        legend(), h("p", { id: "readout", class: "readout", "aria-live": "polite" }), h("div", { id: "result", class: "result" }),
        h("div", { class: "bar", id: "exports" })),
      h("section", { class: "side", "aria-label": "Heads and rules" }, h("div", { class: "bar", id: "sliders" }),
        h("div", { class: "bar", id: "head-controls" }), h("div", { id: "matrix", class: "scroll" }), scaleLegend(),
        h("p", { class: "hint" }, "Ring: used by the run. Dot: picked. Stroke: filtered out. Faint: map not kept in this file. Point at a head for all that is known of it."),
        h("h3", {}, "Each picked head"), h("div", { id: "strip", class: "strip" }),
        h("h3", { id: "across-title" }, "The same head over all pictures"), h("div", { id: "across", class: "strip" }))));
  EXPLORER.cells = startMatrix(byId("matrix"), toggleHead);
  explorerSliders();
  headControls();
  exportButtons(byId("exports"));
  LISTENERS.push(() => {
    if (STATE.view === "explorer") drawExplorer();
  });
}

function sampleField() {
  const options = DATA.samples.map((sample) => /** @type {[string, string]} */ ([sample.id, `${sample.phrase} (${sample.id})`]));
  return selectField("Sample", "sample", options, STATE.id, (id) => openSample(id));
}

function explorerSliders() {
  const steps = (/** @type {string} */ key) => (/** @type {number} */ value) => update({ [key]: value });
  put(byId("sliders"),
    sliderField("k, heads", "k", { min: 1, max: Math.max(1, ...DATA.samples.map(({ ranked }) => ranked.length)), step: 1,
      value: STATE.heads.length }, (k) => takeFirst(k)),
    sliderField("sigma, cells", "sigma", { min: 0, max: 3, step: 0.1, value: STATE.sigma }, steps("sigma")),
    sliderField("threshold, means", "threshold", { min: 0, max: 6, step: 0.05, value: STATE.threshold }, steps("threshold")),
    selectField("region", "region", [["largest", "largest"], ["heaviest", "heaviest"], ["all", "all"]], STATE.region,
      (region) => update({ region })),
    selectField("edges", "edges", [["cells", "whole cells"], ["fractional", "within cells"]], STATE.edges, (edges) => update({ edges })));
  /** @type {HTMLElement} */ (byId("edges").parentElement).hidden = DATA.rules.edges === null;
}

/** Put the state into the fields, as a link or another view left it. */
function syncExplorer() {
  const values = { sample: STATE.id, k: String(STATE.heads.length), sigma: String(STATE.sigma), threshold: String(STATE.threshold),
    region: STATE.region, edges: STATE.edges, score: STATE.score };
  for (const [id, value] of Object.entries(values)) {
    const field = /** @type {HTMLInputElement} */ (byId(id));
    if (field.value !== value) field.value = value;
    const shown = field.parentElement && field.parentElement.querySelector("output");
    if (shown) shown.textContent = formatNumber(Number(value));
  }
}

/** @param {number} k */
function takeFirst(k) {
  const sample = currentSample();
  if (sample) update({ heads: sample.ranked.slice(0, k) });
}

function headControls() {
  const scores = Object.entries(DATA.scoreNames).filter(([key]) => key !== "frequency" || DATA.dataset.frequency !== null);
  put(byId("head-controls"),
    selectField("Colour by", "score", scores, STATE.score, (score) => update({ score })),
    h("button", { type: "button", id: "run-heads", onclick: () => openSample(STATE.id) }, "The run's heads"),
    h("button", { type: "button", id: "random-head", onclick: randomHead,
      title: "a head drawn from a set that was drawn at random, as a control" }, "Random head"),
    h("button", { type: "button", id: "reset-rules", onclick: resetRules }, "The run's rules"));
}

function randomHead() {
  const others = DATA.controls.filter((head) => !STATE.heads.includes(head));
  if (!others.length) return announce("This report keeps no random heads.");
  const head = others[Math.floor(Math.random() * others.length)];
  update({ heads: [head] });
  return announce(`Random head ${headName(head)}`);
}

function resetRules() {
  const { sigma, threshold, region, edges } = initialState();
  update({ sigma, threshold, region, edges });
}

/** @param {number} head */
function toggleHead(head) {
  const sample = currentSample();
  if (!sample) return;
  if (!hasMap(sample, head)) {
    announce(`${headName(head)}: its map is not kept in this file.`);
    byId("readout").textContent = describeHead(sample, head);
    return;
  }
  const rest = STATE.heads.filter((other) => other !== head);
  update({ heads: rest.length < STATE.heads.length ? rest : [...rest, head] });
}

/** @param {number} by */
function step(by) {
  const ids = DATA.samples.map((sample) => sample.id);
  const heads = STATE.heads;
  const sample = SAMPLES.get(ids[(ids.indexOf(STATE.id) + by + ids.length) % ids.length]);
  const kept = sample && heads.length && heads.every((head) => hasMap(sample, head));
  if (sample) update({ id: sample.id, heads: kept && !sameHeads(heads, currentSample()) ? heads : sample.heads.slice() });
}

/**
 * @param {number[]} heads
 * @param {Sample | null} sample
 */
function sameHeads(heads, sample) {
  return sample !== null && heads.join() === sample.heads.join();
}

function drawExplorer() {
  const sample = currentSample();
  if (!sample) return put(byId("stage"), "This report holds no picture.");
  syncExplorer();
  drawStage(sample);
  drawHeads(sample);
  return undefined;
}

/**
 * The picked heads whose maps are here, and these maps.
 * @param {Sample} sample
 */
function pickedMaps(sample) {
  const heads = STATE.heads.filter((head) => hasMap(sample, head));
  const maps = heads.map((head) => /** @type {Float32Array} */ (mapOf(sample, head)));
  return { heads, maps };
}

/** @param {Sample} sample */
function drawStage(sample) {
  const { heads, maps } = pickedMaps(sample);
  const found = maps.length ? localize(maps, sample.grid, sample.size, STATE) : null;
  EXPLORER.found = found;
  put(byId("sample-phrase"), ...phraseNodes(sample));
  const peak = found ? peakInImage(found.combined, sample) : 0;
  const picture = pictureSvg(sample, `${sample.phrase}: attention of ${heads.map(headName).join(", ") || "no head"}`,
    found && heatLayer(found.combined, sample, peak), found && maskLayer(found.mask, sample),
    boxLayer(sample.truth, sample, TRUTH, "truth", 3), found && boxLayer(found.box, sample, PREDICTED, "predicted"));
  watchCells(picture, sample);
  put(byId("stage"), picture);
  drawResult(sample, found, heads);
}

/**
 * @param {ArrayLike<number>} map
 * @param {Sample} sample
 */
function peakInImage(map, sample) {
  const inside = cellsInImage(sample.grid, sample.size);
  let top = 0;
  for (let i = 0; i < map.length; i += 1) top = inside[i] ? Math.max(top, map[i]) : top;
  return top;
}

/**
 * @param {Sample} sample
 * @param {Localized | null} found
 * @param {number[]} heads
 */
function drawResult(sample, found, heads) {
  const missing = STATE.heads.filter((head) => !heads.includes(head));
  const coded = heads.filter((head) => !isExact(sample, head));
  const facts = [
    ["heads", heads.map(headName).join(" ") || "none"],
    ["box", found ? formatBox(found.box) : "none"],
    ["IoU", sample.truth === null ? "no true box" : formatNumber(found ? iouOf(found.box, sample.truth) : 0)],
    ["the run", `${formatBox(sample.box)}${sample.iou === null ? "" : `; IoU ${formatNumber(sample.iou)}`} (${sample.heads.map(headName).join(" ")}, ${sample.source})`],
  ];
  const list = h("dl", { id: "facts" });
  for (const [name, value] of facts) list.append(h("dt", {}, name), h("dd", { "data-fact": name }, value));
  put(byId("result"), list,
    coded.length ? h("p", { class: "hint" }, `${coded.map(headName).join(", ")}: 8-bit maps, so that the box may differ by a cell from a run's.`) : null,
    missing.length ? h("p", { class: "hint" }, `${missing.map(headName).join(", ")}: map not kept in this file, left out here.`) : null,
    ...sample.notes.map((note) => h("p", { class: "hint" }, note)));
}

/** @param {Sample} sample */
function drawHeads(sample) {
  const key = JSON.stringify([STATE.id, STATE.heads, STATE.score]);
  if (key === EXPLORER.drawn) return;
  EXPLORER.drawn = key;
  paintMatrix(EXPLORER.cells, sample);
  paintScaleLegend(sample);
  const { heads, maps } = pickedMaps(sample);
  put(byId("strip"), ...heads.map((head, i) => thumbnail(sample, maps[i], headName(head), describeHead(sample, head), () => update({ heads: [head] }))));
  const head = heads[heads.length - 1];
  byId("across-title").textContent = head === undefined ? "No head is picked" : `${headName(head)} over all pictures`;
  put(byId("across"), ...(head === undefined ? [] : DATA.samples.map((other) => acrossThumbnail(other, head))));
}

/**
 * @param {Sample} other
 * @param {number} head
 */
function acrossThumbnail(other, head) {
  const map = mapOf(other, head);
  return map && thumbnail(other, map, other.phrase, other.id, () => update({ id: other.id, heads: [head] }));
}

/**
 * @param {Sample} sample
 * @param {ArrayLike<number>} map
 * @param {string} caption
 * @param {string} title
 * @param {() => void} open
 */
function thumbnail(sample, map, caption, title, open) {
  return h("button", { type: "button", class: "thumbnail", title, onclick: open },
    pictureSvg(sample, caption, heatLayer(map, sample, peakInImage(map, sample))), h("span", {}, caption));
}
