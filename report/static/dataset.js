// @ts-check
// What the whole data set says: elbow, frequency of selection, audit, scores; and another run beside this one.

/** @param {HTMLElement} place */
function startDataset(place) {
  const { dataset } = DATA;
  put(place, h("p", { class: "count" }, dataset.source), h("div", { class: "panels" },
    dataset.scores.length ? panel("Scores", barChart(dataset.scores, "Scores with intervals"), "Whiskers: 95 % intervals, where the run wrote them.") : null,
    panel("Attention sums and the elbow", elbowChart(dataset), "Points: the heads that are fixed for the data set, or used most often."),
    frequencyPanel(dataset),
    dataset.bars.length ? panel("Audit of the heads", barChart(dataset.bars, "Mean IoU of the heads and of their rivals"), dataset.verdict || "") : null,
    dataset.table ? panel(dataset.table.caption, tableOf(dataset.table.columns, dataset.table.rows, ""), "") : null));
}

/**
 * @param {string} title
 * @param {Node} content
 * @param {string} note
 */
function panel(title, content, note) {
  return h("section", { class: "panel" }, h("h2", {}, title), content, h("p", { class: "hint" }, note));
}

/** @param {Dataset} dataset */
function frequencyPanel(dataset) {
  if (dataset.frequency === null) return null;
  const frequency = dataset.frequency;
  const ranked = frequency.map((value, head) => ({ value, head })).sort((a, b) => b.value - a.value).slice(0, 10);
  const rows = ranked.filter(({ value }) => value > 0)
    .map(({ value, head }) => [headName(head), `${(100 * value).toFixed(1)} %`, formatNumber(dataset.meanSums[head])]);
  return panel("How often each head is chosen", h("div", {}, frequencyMap(frequency),
    tableOf(["head", "frequency", "mean sum"], rows, "Most frequent heads")), `Over ${dataset.numSamples} samples. Rings: fixed heads, or those used most often.`);
}

/** @param {number[]} frequency */
function frequencyMap(frequency) {
  const [left, top, side] = [30, 16, Math.min(32, 526 / DATA.numHeads)];
  const highest = Math.max(...frequency, 1e-9);
  const node = s("svg", { viewBox: `0 0 560 ${top + side * DATA.numLayers + 4}`, class: "chart", role: "img",
    "aria-label": "Frequency of selection, layer by layer" });
  frequency.forEach((value, head) => {
    const [layer, column] = [Math.floor(head / DATA.numHeads), head % DATA.numHeads];
    const place = { x: left + column * side, y: top + layer * side, width: side - 1, height: side - 1 };
    node.append(s("rect", { ...place, fill: scaleColor(value / highest), class: DATA.fixed.includes(head) ? "ringed" : null },
      s("title", {}, `${headName(head)}: ${(100 * value).toFixed(1)} %`)));
  });
  const every = Math.ceil(DATA.numLayers / 16);
  for (let layer = 0; layer < DATA.numLayers; layer += every) {
    node.append(s("text", { x: left - 5, y: top + layer * side + side / 2 + 4, "text-anchor": "end" }, `L${layer}`));
  }
  for (let head = 0; head < DATA.numHeads; head += Math.ceil(DATA.numHeads / 16)) {
    node.append(s("text", { x: left + head * side + side / 2, y: top - 4, "text-anchor": "middle" }, `${head}`));
  }
  return node;
}

/** @param {HTMLElement} place */
function startCompare(place) {
  const { against } = DATA;
  if (against === null) return;
  const rows = new Map(against.rows.map((row) => [row.id, row]));
  const shared = DATA.samples.filter((sample) => rows.has(sample.id));
  const pairs = shared.map((sample) => ({ sample, other: rows.get(sample.id)?.iou ?? null }))
    .filter((pair) => pair.other !== null && pair.sample.iou !== null);
  pairs.sort((a, b) => gain(a) - gain(b));
  put(place, h("p", { class: "count" }, `This run: ${DATA.title}. The other: ${against.title}. ${shared.length} of ${DATA.samples.length} pictures are in both.`),
    pairs.length ? h("div", { class: "panels" },
      against.scores.length ? panel("All rows that both have", barChart(against.scores, "Mean IoU of both runs"), against.scores[0].note) : null,
      panel("The pictures shown", scatterChart(/** @type {any} */ (pairs), "this run", "the other"), summaryOf(pairs))) : null,
    h("ul", { class: "cards" }, ...(pairs.length ? pairs.map(({ sample }) => sample) : shared).map((sample) => compareCard(sample, rows.get(sample.id)))));
}

/** @param {{sample: Sample, other: number | null}} pair */
function gain({ sample, other }) {
  return (sample.iou || 0) - (other || 0);
}

/** @param {{sample: Sample, other: number | null}[]} pairs */
function summaryOf(pairs) {
  const better = pairs.filter((pair) => gain(pair) > 0).length;
  const worse = pairs.filter((pair) => gain(pair) < 0).length;
  const mean = pairs.reduce((sum, pair) => sum + gain(pair), 0) / pairs.length;
  return `Mean difference ${formatNumber(mean)} over the ${pairs.length} pictures shown here, chosen for this page: ${better} better, ${worse} worse.`;
}

/**
 * @param {Sample} sample
 * @param {{box: number[] | null, iou: number | null, heads: string} | undefined} row
 */
function compareCard(sample, row) {
  const other = row || { box: null, iou: null, heads: "" };
  const picture = pictureSvg(sample, `${sample.phrase}: boxes of both runs`, boxLayer(sample.truth, sample, TRUTH, "truth", 3),
    boxLayer(other.box, sample, OTHER, "other", 1.5), boxLayer(sample.box, sample, PREDICTED, "predicted"));
  return h("li", { class: "card", "data-id": sample.id }, h("button", { type: "button", class: "open", onclick: () => openSample(sample.id) },
    h("span", { class: "frame" }, picture), h("span", { class: "phrase" }, ...phraseNodes(sample)),
    h("span", { class: "facts" }, h("span", { class: "sign" }, h("i", { class: "predicted" }), `IoU ${formatNumber(sample.iou)}, ${sample.heads.map(headName).join(" ")}`),
      h("span", { class: "sign" }, h("i", { class: "other" }), `IoU ${formatNumber(other.iou)}, ${other.heads}`))));
}
