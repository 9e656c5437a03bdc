// @ts-check
// The data block of the page: its types, and the maps in it.

/**
 * @typedef {{
 *   id: string, phrase: string, last: string | null, picture: string, size: number[], grid: Grid, file: string,
 *   box: number[] | null, truth: number[] | null, iou: number | null, sizeClass: string | null, kind: string | null,
 *   confidence: number | null, heads: number[], source: string, notes: string[], ranked: number[], why: string,
 *   scores: Object<string, (number | null)[]>, exact: {heads: number[], values: string},
 *   coded: {peaks: number[], values: string},
 * }} Sample
 * @typedef {{name: string, value: number, low: number | null, high: number | null, note: string}} Bar
 * @typedef {{
 *   numSamples: number, source: string, frequency: number[] | null, meanSums: number[], threshold: number | null,
 *   bars: Bar[], verdict: string | null, scores: Bar[], thresholdRange: number[] | null,
 *   table: {caption: string, columns: string[], rows: string[][]} | null,
 * }} Dataset
 * @typedef {{
 *   title: string, model: string, command: string, about: string[], numLayers: number, numHeads: number,
 *   emptyLayers: number[], rules: BoxRules & {k: number, edges: string | null}, fixed: number[], controls: number[], coded: number[],
 *   reasons: string[], kinds: {key: string, name: string, rule: string}[], scoreNames: Object<string, string>,
 *   dataset: Dataset, samples: Sample[], failures: {id: string, reason: string}[],
 *   against: {title: string, rows: {id: string, box: number[] | null, iou: number | null, heads: string}[], scores: Bar[]} | null,
 * }} ReportData
 */

/** @type {ReportData} */
const DATA = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("report-data")).textContent || "{}");
const SAMPLES = new Map(DATA.samples.map((sample) => [sample.id, sample]));
/** @type {Map<string, Map<number, Float32Array>>} */
const DECODED = new Map();

/** @param {number} head Flat index. */
function headName(head) {
  return `L${Math.floor(head / DATA.numHeads)}H${head % DATA.numHeads}`;
}

/**
 * Flat index of a head such as L14H24, or null if the model has none of that name.
 * @param {string} name
 */
function headOf(name) {
  const found = /^L(\d+)H(\d+)$/.exec(name.trim());
  if (found === null || Number(found[1]) >= DATA.numLayers || Number(found[2]) >= DATA.numHeads) return null;
  return Number(found[1]) * DATA.numHeads + Number(found[2]);
}

/**
 * The map of a head on a sample; null where the page holds none.
 * @param {Sample} sample
 * @param {number} head
 * @returns {Float32Array | null}
 */
function mapOf(sample, head) {
  const maps = decodedMaps(sample);
  if (maps.has(head)) return maps.get(head) || null;
  const place = DATA.coded.indexOf(head);
  if (place < 0) return null;
  const map = decodeMap(sample, place);
  maps.set(head, map);
  return map;
}

/** @param {Sample} sample */
function decodedMaps(sample) {
  const known = DECODED.get(sample.id);
  if (known !== undefined) return known;
  const cells = sample.grid.rows * sample.grid.cols;
  const values = new Float32Array(bytesOf(sample.exact.values).buffer);
  const maps = new Map(sample.exact.heads.map((head, i) => [head, values.subarray(i * cells, (i + 1) * cells)]));
  DECODED.set(sample.id, maps);
  return maps;
}

/**
 * An 8-bit map: the code is 255 times the root of the share of the map's peak.
 * @param {Sample} sample
 * @param {number} place Among the heads that every sample holds so.
 */
function decodeMap(sample, place) {
  const cells = sample.grid.rows * sample.grid.cols;
  const all = codedBytes(sample);
  const map = new Float32Array(cells);
  for (let i = 0; i < cells; i += 1) {
    const root = all[place * cells + i] / 255;
    map[i] = root * root * sample.coded.peaks[place];
  }
  return map;
}

/** @type {WeakMap<Sample, Uint8Array>} */
const BYTES = new WeakMap();

/** @param {Sample} sample */
function codedBytes(sample) {
  const bytes = BYTES.get(sample) || bytesOf(sample.coded.values);
  BYTES.set(sample, bytes);
  return bytes;
}

/**
 * @param {string} text Base64.
 * @returns {Uint8Array<ArrayBuffer>}
 */
function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/**
 * Whether the map of a head is kept exactly, not in 8 bits.
 * @param {Sample} sample
 * @param {number} head
 */
function isExact(sample, head) {
  return sample.exact.heads.includes(head);
}
