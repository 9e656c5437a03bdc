// @ts-check
// Small charts in SVG: their words and numbers are text, their colours those of the page.

/** @typedef {{x: (value: number) => number, y: (value: number) => number, node: SVGElement}} Axes */

const CHART = { width: 560, height: 300, left: 56, right: 16, top: 14, bottom: 44 };

/**
 * Empty axes from 0 (or the lowest value) to the highest one.
 * @param {string} label
 * @param {[number, number]} xRange
 * @param {[number, number]} yRange
 * @param {string} xName
 * @param {string} yName
 * @returns {Axes}
 */
function axes(label, xRange, yRange, xName, yName) {
  const { width, height, left, right, top, bottom } = CHART;
  const scale = (/** @type {number} */ value, /** @type {[number, number]} */ [low, high]) => (value - low) / (high - low || 1);
  const x = (/** @type {number} */ value) => left + scale(value, xRange) * (width - left - right);
  const y = (/** @type {number} */ value) => height - bottom - scale(value, yRange) * (height - top - bottom);
  const node = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
  for (let i = 0; i <= 4; i += 1) {
    const [atX, atY] = [xRange, yRange].map(([low, high]) => low + ((high - low) * i) / 4);
    node.append(s("line", { x1: left, x2: width - right, y1: y(atY), y2: y(atY), class: "rule" }),
      s("text", { x: left - 6, y: y(atY) + 4, "text-anchor": "end" }, shortNumber(atY)),
      s("text", { x: x(atX), y: height - bottom + 18, "text-anchor": "middle" }, shortNumber(atX)));
  }
  node.append(s("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", class: "name" }, xName),
    s("text", { transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "name" }, yName));
  return { x, y, node };
}

/** @param {number} value */
function shortNumber(value) {
  return Math.abs(value) >= 10 ? String(Math.round(value)) : String(Number(value.toFixed(2)));
}

/**
 * The sorted mean sums with the elbow; heads of the run marked.
 * @param {Dataset} dataset
 */
function elbowChart(dataset) {
  const order = dataset.meanSums.map((sum, head) => ({ sum, head })).filter(({ sum }) => sum !== null).sort((a, b) => a.sum - b.sum);
  const top = Math.max(1e-9, ...order.map(({ sum }) => sum));
  const chart = axes("Mean attention sums in ascending order with the threshold", [1, Math.max(order.length, 2)], [0, top],
    "heads, least first", "mean sum over the image");
  const path = order.map(({ sum }, i) => `${i ? "L" : "M"}${chart.x(i + 1).toFixed(1)} ${chart.y(sum).toFixed(1)}`).join("");
  chart.node.append(s("path", { d: path, class: "line" }));
  const [limits, text] = thresholdsOf(dataset);
  for (const limit of limits) {
    chart.node.append(s("line", { x1: chart.x(1), x2: CHART.width - CHART.right, y1: chart.y(limit), y2: chart.y(limit), class: "limit" }));
  }
  if (limits.length) chart.node.append(s("text", { x: chart.x(1) + 4, y: chart.y(Math.max(...limits)) - 5, class: "strong" }, text));
  order.forEach(({ sum, head }, i) => {
    if (!DATA.fixed.includes(head)) return;
    const label = `${headName(head)}: mean sum ${formatNumber(sum)}, place ${i + 1} of ${order.length}`;
    chart.node.append(s("circle", { cx: chart.x(i + 1), cy: chart.y(sum), r: 5, class: "point" }, s("title", {}, label)));
  });
  return chart.node;
}

/**
 * The threshold of the data set, or the ends of those of the samples; and what to call it.
 * @param {Dataset} dataset
 * @returns {[number[], string]}
 */
function thresholdsOf(dataset) {
  if (dataset.threshold !== null) return [[dataset.threshold], `threshold ${formatNumber(dataset.threshold)}`];
  if (dataset.thresholdRange === null) return [[], ""];
  const ends = dataset.thresholdRange.map(formatNumber).join(" to ");
  return [dataset.thresholdRange, `each sample has its own threshold, ${ends}`];
}

/**
 * Bars with their intervals and numbers.
 * @param {Bar[]} bars
 * @param {string} label
 */
function barChart(bars, label) {
  const [row, left, width] = [34, 225, 640];
  const ends = bars.flatMap((bar) => [bar.value, bar.low || 0, bar.high || 0]);
  const [bottom, top] = [Math.min(0, ...ends), Math.max(1, ...ends)];
  const x = (/** @type {number} */ value) => left + ((value - bottom) / (top - bottom)) * (width - left - 175);
  const node = s("svg", { viewBox: `0 0 ${width} ${row * bars.length + 8}`, class: "chart", role: "img", "aria-label": label });
  bars.forEach((bar, i) => {
    const y = i * row + 6;
    const interval = bar.low === null || bar.high === null ? "" : ` [${bar.low.toFixed(3)}, ${bar.high.toFixed(3)}]`;
    const [from, to] = [x(Math.min(bar.value, 0)), x(Math.max(bar.value, 0))];
    node.append(s("text", { x: left - 8, y: y + 17, "text-anchor": "end" }, bar.name),
      s("rect", { x: from, y, width: to - from, height: row - 12, class: i ? "bar-other" : "bar-first" }));
    if (bar.low !== null && bar.high !== null) {
      node.append(s("path", { d: `M${x(bar.low)} ${y + 11}H${x(bar.high)}M${x(bar.low)} ${y + 6}v10M${x(bar.high)} ${y + 6}v10`, class: "whisker" }));
    }
    node.append(s("text", { x: Math.max(to, x(bar.high || 0)) + 6, y: y + 17, class: "strong" }, bar.value.toFixed(3) + interval,
      s("title", {}, bar.note)));
  });
  return node;
}

/**
 * IoU here against IoU there, one point a sample.
 * @param {{sample: Sample, other: number}[]} pairs
 * @param {string} here
 * @param {string} there
 */
function scatterChart(pairs, here, there) {
  const chart = axes("IoU of both runs, sample by sample", [0, 1], [0, 1], `IoU, ${there}`, `IoU, ${here}`);
  chart.node.append(s("line", { x1: chart.x(0), y1: chart.y(0), x2: chart.x(1), y2: chart.y(1), class: "limit" }));
  for (const { sample, other } of pairs) {
    const iou = sample.iou === null ? 0 : sample.iou;
    const text = `${sample.phrase}: ${formatNumber(iou)} here, ${formatNumber(other)} there`;
    chart.node.append(s("circle", { cx: chart.x(other), cy: chart.y(iou), r: 4, class: "point" }, s("title", {}, text)));
  }
  return chart.node;
}

/**
 * @param {string[]} columns
 * @param {(string | Node)[][]} rows
 * @param {string} caption
 */
function tableOf(columns, rows, caption) {
  const head = h("tr", {}, ...columns.map((column) => h("th", { scope: "col" }, column)));
  const body = rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, cell))));
  return h("div", { class: "scroll" }, h("table", { class: "numbers" }, h("caption", {}, caption), h("thead", {}, head), h("tbody", {}, ...body)));
}
