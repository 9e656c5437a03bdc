// @ts-check
// Maps -> combined map -> mask -> box: the arithmetic of bbox.py, held equal to it by tests/test_report_browser.py.

/** A cell that reaches into the image by less than this share of its size does so by rounding only. */
const SLIVER = 1e-6;
/** A map whose values differ by less than this share of the largest is flat. */
const FLATNESS = 1e-6;

/**
 * @typedef {{rows: number, cols: number, x0: number, y0: number, cell_w: number, cell_h: number}} Grid
 * @typedef {{
 *   sigma: number, truncate: number, threshold: number, region: string, edges: string, edgeMost: number, edgePower: number,
 * }} BoxRules
 * @typedef {{combined: Float64Array, mask: Uint8Array, box: number[] | null}} Localized
 */

/**
 * Combine maps and draw the box around what stands out.
 * @param {ArrayLike<number>[]} maps Row-major, one for each head.
 * @param {Grid} grid
 * @param {number[]} size Width and height of the image.
 * @param {BoxRules} rules
 * @returns {Localized}
 */
function localize(maps, grid, size, rules) {
  const combined = sumOf(maps.map((map) => smooth(map, grid, rules.sigma, rules.truncate)), grid.rows * grid.cols);
  const above = thresholded(combined, cellsInImage(grid, size), rules.threshold);
  const mask = rules.region === "all" ? above : oneRegion(above, combined, grid, rules.region === "heaviest");
  const insets = rules.edges === "fractional" ? edgeInsets(combined, mask, grid, rules) : [0, 0, 0, 0];
  return { combined, mask, box: tightBox(mask, grid, size, insets) };
}

/**
 * @param {Float64Array[]} maps
 * @param {number} count
 */
function sumOf(maps, count) {
  const sum = new Float64Array(count);
  for (const map of maps) {
    for (let i = 0; i < count; i += 1) sum[i] += map[i];
  }
  return sum;
}

/**
 * Gaussian whose edges reflect (d c b a | a b c d | d c b a), cut at `truncate` standard deviations.
 * @param {ArrayLike<number>} map
 * @param {Grid} grid
 * @param {number} sigma In cells.
 * @param {number} truncate
 */
function smooth(map, grid, sigma, truncate) {
  if (sigma <= 1e-15) return Float64Array.from(map);
  const kernel = gaussian(sigma, truncate);
  const down = smoothAxis(map, kernel, grid.rows, grid.cols, grid.cols, 1);
  return smoothAxis(down, kernel, grid.cols, 1, grid.rows, grid.cols);
}

/**
 * @param {number} sigma
 * @param {number} truncate
 */
function gaussian(sigma, truncate) {
  const radius = Math.floor(truncate * sigma + 0.5);
  const kernel = new Float64Array(2 * radius + 1);
  for (let i = -radius; i <= radius; i += 1) kernel[i + radius] = Math.exp((-0.5 / (sigma * sigma)) * i * i);
  const total = kernel.reduce((sum, value) => sum + value, 0);
  return kernel.map((value) => value / total);
}

/**
 * Smooth along one axis: `length` cells that lie `step` apart, for each of `lines` lines that lie `lineStep` apart.
 * @param {ArrayLike<number>} map
 * @param {Float64Array} kernel
 * @param {number} length
 * @param {number} step
 * @param {number} lines
 * @param {number} lineStep
 */
function smoothAxis(map, kernel, length, step, lines, lineStep) {
  const radius = (kernel.length - 1) / 2;
  const result = new Float64Array(map.length);
  for (let line = 0; line < lines; line += 1) {
    for (let at = 0; at < length; at += 1) {
      let sum = 0;
      for (let i = -radius; i <= radius; i += 1) {
        sum += kernel[i + radius] * map[line * lineStep + reflected(at + i, length) * step];
      }
      result[line * lineStep + at * step] = sum;
    }
  }
  return result;
}

/**
 * @param {number} index
 * @param {number} length
 */
function reflected(index, length) {
  const period = 2 * length;
  const within = ((index % period) + period) % period;
  return within < length ? within : period - 1 - within;
}

/**
 * Which cells share some area with the image.
 * @param {Grid} grid
 * @param {number[]} size
 */
function cellsInImage(grid, size) {
  const across = reaches(grid.x0, grid.cell_w, grid.cols, size[0]);
  const down = reaches(grid.y0, grid.cell_h, grid.rows, size[1]);
  const inside = new Uint8Array(grid.rows * grid.cols);
  for (let i = 0; i < inside.length; i += 1) {
    inside[i] = across[i % grid.cols] && down[Math.floor(i / grid.cols)] ? 1 : 0;
  }
  return inside;
}

/**
 * @param {number} origin
 * @param {number} cell
 * @param {number} count
 * @param {number} length
 */
function reaches(origin, cell, count, length) {
  return Array.from({ length: count }, (_, i) => {
    return clip(origin + cell * (i + 1), length) - clip(origin + cell * i, length) > SLIVER * cell;
  });
}

/**
 * @param {number} value
 * @param {number} length
 */
function clip(value, length) {
  return Math.min(Math.max(value, 0), length);
}

/**
 * Cells of the image above the threshold; none where the map is flat.
 * @param {Float64Array} map
 * @param {Uint8Array} inside
 * @param {number} relative As a multiple of the mean over the cells of the image.
 */
function thresholded(map, inside, relative) {
  let sum = 0;
  let count = 0;
  let smallest = Infinity;
  let largest = -Infinity;
  for (let i = 0; i < map.length; i += 1) {
    if (!inside[i]) continue;
    sum += map[i];
    count += 1;
    smallest = Math.min(smallest, map[i]);
    largest = Math.max(largest, map[i]);
  }
  const flat = largest - smallest <= FLATNESS * Math.max(Math.abs(smallest), Math.abs(largest));
  const cutoff = flat ? Infinity : relative * (sum / count);
  return Uint8Array.from(map, (value, i) => (inside[i] && value > cutoff ? 1 : 0));
}

/**
 * Keep the 8-connected region with the most cells, then the largest sum, then the first; or that with the largest sum.
 * @param {Uint8Array} mask
 * @param {Float64Array} map
 * @param {Grid} grid
 * @param {boolean} heaviest
 */
function oneRegion(mask, map, grid, heaviest) {
  /** @type {{cells: number[], mass: number} | null} */
  let best = null;
  const seen = new Uint8Array(mask.length);
  for (let start = 0; start < mask.length; start += 1) {
    if (!mask[start] || seen[start]) continue;
    const cells = regionFrom(start, mask, seen, grid).sort((a, b) => a - b);
    const mass = cells.reduce((sum, cell) => sum + map[cell], 0);
    const counts = best === null ? 1 : heaviest ? 0 : cells.length - best.cells.length;
    if (best === null || counts > 0 || (counts === 0 && mass > best.mass)) best = { cells, mass };
  }
  const kept = new Uint8Array(mask.length);
  for (const cell of best === null ? [] : best.cells) kept[cell] = 1;
  return kept;
}

/**
 * @param {number} start
 * @param {Uint8Array} mask
 * @param {Uint8Array} seen
 * @param {Grid} grid
 */
function regionFrom(start, mask, seen, grid) {
  const cells = [start];
  seen[start] = 1;
  for (let next = 0; next < cells.length; next += 1) {
    const row = Math.floor(cells[next] / grid.cols);
    const col = cells[next] % grid.cols;
    for (let r = Math.max(row - 1, 0); r <= Math.min(row + 1, grid.rows - 1); r += 1) {
      for (let c = Math.max(col - 1, 0); c <= Math.min(col + 1, grid.cols - 1); c += 1) {
        const cell = r * grid.cols + c;
        if (mask[cell] && !seen[cell]) {
          seen[cell] = 1;
          cells.push(cell);
        }
      }
    }
  }
  return cells;
}

/**
 * How far each edge of the tight box moves into its outer cells, in cells: left, top, right, bottom.
 * @param {Float64Array} map
 * @param {Uint8Array} mask
 * @param {Grid} grid
 * @param {BoxRules} rules
 */
function edgeInsets(map, mask, grid, rules) {
  const across = { sums: new Float64Array(grid.cols), set: new Uint8Array(grid.cols) };
  const down = { sums: new Float64Array(grid.rows), set: new Uint8Array(grid.rows) };
  mask.forEach((set, i) => {
    if (!set) return;
    for (const [axis, at] of /** @type {[typeof across, number][]} */ ([[across, i % grid.cols], [down, Math.floor(i / grid.cols)]])) {
      axis.sums[at] += map[i];
      axis.set[at] = 1;
    }
  });
  const [[left, right], [top, bottom]] = [across, down].map(({ sums, set }) => movedEnds(sums, set, rules));
  return [left, top, right, bottom];
}

/**
 * @param {Float64Array} sums Attention of each line of cells.
 * @param {Uint8Array} set Which lines are occupied.
 * @param {BoxRules} rules
 */
function movedEnds(sums, set, rules) {
  const [first, last] = [set.indexOf(1), set.lastIndexOf(1)];
  const mean = sums.reduce((total, value) => total + value, 0) / (last - first + 1);
  if (!(last > first && mean > 0)) return [0, 0];
  return [first, last].map((line) => {
    return rules.edgeMost * (1 - Math.min(Math.max(sums[line] / mean, 0), 1) ** rules.edgePower);
  });
}

/**
 * The tight box around a mask, half-open, clipped to the image; null where the mask is empty.
 * @param {Uint8Array} mask
 * @param {Grid} grid
 * @param {number[]} size
 * @param {number[]} insets How far each edge moves inwards, in cells.
 */
function tightBox(mask, grid, size, insets) {
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  mask.forEach((set, i) => {
    if (!set) return;
    left = Math.min(left, i % grid.cols);
    right = Math.max(right, i % grid.cols);
    top = Math.min(top, Math.floor(i / grid.cols));
    bottom = Math.max(bottom, Math.floor(i / grid.cols));
  });
  if (right < 0) return null;
  return [
    clip(grid.x0 + grid.cell_w * (left + insets[0]), size[0]),
    clip(grid.y0 + grid.cell_h * (top + insets[1]), size[1]),
    clip(grid.x0 + grid.cell_w * (right + 1 - insets[2]), size[0]),
    clip(grid.y0 + grid.cell_h * (bottom + 1 - insets[3]), size[1]),
  ];
}

/**
 * Intersection over union of two half-open boxes; 0 where there is no first one.
 * @param {number[] | null} a
 * @param {number[]} b
 */
function iouOf(a, b) {
  if (a === null) return 0;
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const union = areaOf(a) + areaOf(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}

/** @param {number[]} box */
function areaOf(box) {
  return Math.max(box[2] - box[0], 0) * Math.max(box[3] - box[1], 0);
}
