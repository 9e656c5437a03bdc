// @ts-check
// What is being looked at, and its place in the address: every view can be linked to.

const VIEWS = ["gallery", "explorer", "dataset", "compare"];

/**
 * @typedef {{
 *   view: string, id: string, heads: number[], sigma: number, truncate: number, threshold: number, region: string,
 *   edges: string, edgeMost: number, edgePower: number, score: string, sort: string, kind: string, sizeClass: string, text: string, lowest: number,
 * }} State
 */

/** @type {State} */
const STATE = initialState();
/** @type {(() => void)[]} */
const LISTENERS = [];

/** @returns {State} */
function initialState() {
  const { sigma, truncate, threshold, region, edgeMost, edgePower } = DATA.rules;
  const first = DATA.samples[0];
  return {
    view: "gallery", id: first ? first.id : "", heads: first ? first.heads.slice() : [],
    sigma, truncate, threshold, region, edges: DATA.rules.edges || "cells", edgeMost, edgePower,
    score: Object.keys(DATA.scoreNames)[0] || "sum", sort: "given", kind: "", sizeClass: "", text: "", lowest: 0,
  };
}

/** @returns {Sample | null} */
function currentSample() {
  return SAMPLES.get(STATE.id) || null;
}

/**
 * Change what is looked at, draw it, and keep the address in step.
 * @param {Partial<State>} changes
 */
function update(changes) {
  Object.assign(STATE, changes);
  history.replaceState(null, "", `#${linkOf(STATE)}`);
  for (const listener of LISTENERS) listener();
}

/**
 * Look at a sample with the heads that the run used.
 * @param {string} id
 */
function openSample(id) {
  const sample = SAMPLES.get(id);
  if (sample !== undefined) update({ view: "explorer", id, heads: sample.heads.slice() });
}

/**
 * @param {State} state
 */
function linkOf(state) {
  const initial = initialState();
  /** @type {[string, string][]} */
  const parts = [];
  if (state.view === "explorer") {
    parts.push(["id", state.id], ["heads", state.heads.map(headName).join(",")]);
  } else if (state.view !== "gallery") {
    parts.push(["view", state.view]);
  }
  for (const key of /** @type {(keyof State)[]} */ (LINKED)) {
    if (state[key] !== initial[key]) parts.push([key, String(state[key])]);
  }
  return parts.map(([key, value]) => `${key}=${encodeURIComponent(value).replace(/%2C/g, ",")}`).join("&");
}

const LINKED = ["sigma", "threshold", "region", "edges", "score", "sort", "kind", "sizeClass", "text", "lowest"];

/** Take the state from the address; what the address does not say is as at the start. */
function readLink() {
  /** @type {any} */
  const state = initialState();
  const given = parametersOf(location.hash.slice(1));
  for (const key of LINKED) {
    if (given.has(key)) state[key] = typeof state[key] === "number" ? Number(given.get(key)) : given.get(key);
  }
  readPlace(state, given);
  if (!["largest", "heaviest", "all"].includes(state.region)) state.region = DATA.rules.region;
  if (!["cells", "fractional"].includes(state.edges)) state.edges = initialState().edges;
  for (const key of ["sigma", "threshold", "lowest"]) {
    if (!(state[key] >= 0 && state[key] <= 100)) state[key] = /** @type {any} */ (initialState())[key];
  }
  if (!(state.score in DATA.scoreNames)) state.score = initialState().score;
  Object.assign(STATE, state);
  for (const listener of LISTENERS) listener();
}

/**
 * @param {State} state
 * @param {Map<string, string>} given
 */
function readPlace(state, given) {
  const sample = SAMPLES.get(given.get("id") || "");
  const view = given.get("view") || "";
  state.view = sample ? "explorer" : VIEWS.includes(view) ? view : "gallery";
  if (given.has("id") && !sample) announce("The linked sample is not in this report.");
  if (sample) {
    state.id = sample.id;
    const named = (given.get("heads") || "").split(",").map(headOf);
    const heads = named.filter((head) => head !== null);
    state.heads = heads.length ? [...new Set(heads)] : sample.heads.slice();
  }
}

/** @param {string} text */
function parametersOf(text) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const part of text.split("&")) {
    const [key, ...rest] = part.split("=");
    try {
      found.set(key, decodeURIComponent(rest.join("=")));
    } catch {
      announce(`The link says ${key} in a way that cannot be read.`);
    }
  }
  return found;
}
