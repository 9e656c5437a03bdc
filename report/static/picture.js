// @ts-check
// A picture with what lies over it: map, mask, boxes. All in pixels of the image, in one SVG that can be saved.

/** Colours over pictures, told apart by dashes as well. */
const PREDICTED = "#00d5ff";
const TRUTH = "#ffffff";
const OTHER = "#ff9de2";

/**
 * @param {Sample} sample
 * @param {string} label For screen readers.
 * @param {...Child} layers
 */
function pictureSvg(sample, label, ...layers) {
  const [width, height] = sample.size;
  const picture = s("image", { href: sample.picture, width, height, preserveAspectRatio: "none" });
  const root = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "picture" });
  root.append(picture, ...layers.filter((layer) => layer !== null));
  return root;
}

/**
 * A map as squares of colour, from clear to bright at `peak`.
 * @param {ArrayLike<number>} map
 * @param {Sample} sample
 * @param {number} peak
 */
function heatLayer(map, sample, peak) {
  const { rows, cols, x0, y0, cell_w, cell_h } = sample.grid;
  const canvas = document.createElement("canvas");
  canvas.width = cols;
  canvas.height = rows;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = context.createImageData(cols, rows);
  for (let i = 0; i < rows * cols; i += 1) {
    const share = peak > 0 ? Math.min(Math.max(map[i] / peak, 0), 1) : 0;
    pixels.data.set(heatColor(share), 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return s("image", {
    href: canvas.toDataURL(), x: x0, y: y0, width: cols * cell_w, height: rows * cell_h,
    preserveAspectRatio: "none", "image-rendering": "pixelated", class: "heat",
  });
}

/**
 * Dark and faint for little, yellow for much; its lightness alone tells the order.
 * @param {number} share
 * @returns {number[]} Red, green, blue, alpha.
 */
function heatColor(share) {
  const root = Math.sqrt(share);
  return [90 + 165 * root, 20 + 210 * share, 110 * (1 - share), 24 + 186 * root].map(Math.round);
}

/**
 * The outline of a mask along the edges of its cells.
 * @param {Uint8Array} mask
 * @param {Sample} sample
 */
function maskLayer(mask, sample) {
  const { rows, cols, x0, y0, cell_w, cell_h } = sample.grid;
  const set = (/** @type {number} */ r, /** @type {number} */ c) =>
    r >= 0 && c >= 0 && r < rows && c < cols && mask[r * cols + c] === 1;
  const lines = [];
  for (let r = 0; r <= rows; r += 1) {
    for (let c = 0; c <= cols; c += 1) {
      const [x, y] = [x0 + c * cell_w, y0 + r * cell_h];
      if (set(r, c) !== set(r - 1, c)) lines.push(`M${x} ${y}h${cell_w}`);
      if (set(r, c) !== set(r, c - 1)) lines.push(`M${x} ${y}v${cell_h}`);
    }
  }
  return s("path", { d: lines.join(""), class: "mask", ...strokeOf(sample, "#ffe9a8", 0.5) });
}

/**
 * @param {number[] | null} box
 * @param {Sample} sample
 * @param {string} color
 * @param {string} kind Name for tests and style: `predicted`, `truth`, `other`.
 * @param {number} [dash] Length of a dash as a multiple of the line's width; 0 for a line without.
 */
function boxLayer(box, sample, color, kind, dash = 0) {
  if (box === null) return null;
  const [x, y, right, bottom] = box;
  const place = { x, y, width: right - x, height: bottom - y };
  const line = strokeOf(sample, color, 1);
  const width = Number(line["stroke-width"]);
  const casing = s("rect", { ...place, ...line, stroke: "#000000", "stroke-width": 2 * width, opacity: 0.6 });
  const dashes = dash ? `${dash * width} ${0.7 * dash * width}` : null;
  return s("g", { class: `box ${kind}`, "data-box": box.join(",") }, casing,
    s("rect", { ...place, ...line, "stroke-dasharray": dashes }));
}

/**
 * @param {Sample} sample
 * @param {string} color
 * @param {number} weight
 */
function strokeOf(sample, color, weight) {
  const width = (weight * Math.max(sample.size[0], sample.size[1])) / 130;
  return { fill: "none", stroke: color, "stroke-width": width, "stroke-linejoin": "round" };
}

/**
 * The phrase, its last token marked: the attention is that of this token.
 * @param {Sample} sample
 */
function phraseNodes(sample) {
  const { phrase, last } = sample;
  const start = last ? phrase.toLowerCase().lastIndexOf(last.toLowerCase()) : -1;
  if (last === null || start < 0 || start + last.length !== phrase.length) return [phrase];
  return [phrase.slice(0, start), h("mark", { title: "the last token, whose attention is shown" }, phrase.slice(start))];
}
