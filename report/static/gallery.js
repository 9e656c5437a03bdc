// @ts-check
// All pictures of the report as cards: sorted, filtered, searched.

/** @type {[string, string][]} */
const SORTS = [
  ["given", "as chosen"], ["worst", "lowest IoU first"], ["best", "highest IoU first"], ["confidence", "least confident first"],
  ["id", "by id"],
];

/** @param {HTMLElement} place */
function startGallery(place) {
  const cards = h("ul", { class: "cards", id: "cards" });
  const count = h("p", { class: "count", id: "gallery-count", role: "status" });
  put(place, h("div", { class: "bar", id: "gallery-controls" }), count, cards, kindRules(), failureList());
  const made = new Map(DATA.samples.map((sample) => [sample.id, card(sample)]));
  let shown = "";
  LISTENERS.push(() => {
    if (STATE.view !== "gallery") return;
    syncControls();
    const samples = sortedSamples(DATA.samples.filter(passesFilters));
    const order = JSON.stringify(samples.map((sample) => sample.id));
    if (order === shown) return;
    shown = order;
    put(cards, ...samples.map((sample) => made.get(sample.id) || null));
    count.textContent = `${samples.length} of ${DATA.samples.length} pictures`;
  });
  galleryControls(byId("gallery-controls"));
}

/** @param {HTMLElement} place */
function galleryControls(place) {
  const sorts = SORTS.filter(([key]) => key !== "confidence" || DATA.samples.some((sample) => sample.confidence !== null));
  const sizes = [...new Set(DATA.samples.map((sample) => sample.sizeClass))].filter((name) => name !== null).sort();
  put(place,
    selectField("Sort", "sort", sorts, STATE.sort, (sort) => update({ sort })),
    selectField("Kind", "kind", [["", "all"], ...DATA.kinds.map(({ key, name }) => /** @type {[string, string]} */ ([key, name]))],
      STATE.kind, (kind) => update({ kind })),
    selectField("Size", "size-class", [["", "all"], ...sizes.map((size) => /** @type {[string, string]} */ ([size, size]))],
      STATE.sizeClass, (sizeClass) => update({ sizeClass })),
    sliderField("IoU at least", "lowest", { min: 0, max: 1, step: 0.05, value: STATE.lowest }, (lowest) => update({ lowest })),
    h("label", { class: "field", for: "search" }, h("span", {}, "Search"),
      h("input", { id: "search", type: "search", placeholder: "phrase or id",
        oninput: (event) => update({ text: event.target.value }) })));
}

/** Put the state, which a link may have changed, into the fields. */
function syncControls() {
  const values = { sort: STATE.sort, kind: STATE.kind, "size-class": STATE.sizeClass, search: STATE.text, lowest: String(STATE.lowest) };
  for (const [id, value] of Object.entries(values)) {
    const field = /** @type {HTMLInputElement} */ (byId(id));
    if (field.value !== value) field.value = value;
  }
}

/** @param {Sample} sample */
function passesFilters(sample) {
  const text = STATE.text.trim().toLowerCase();
  return (!STATE.kind || sample.kind === STATE.kind)
    && (!STATE.sizeClass || sample.sizeClass === STATE.sizeClass)
    && (STATE.lowest === 0 || (sample.iou !== null && sample.iou >= STATE.lowest))
    && (!text || `${sample.phrase}\n${sample.id}`.toLowerCase().includes(text));
}

/** @param {Sample[]} samples */
function sortedSamples(samples) {
  const last = (/** @type {number | null} */ value) => (value === null ? Infinity : value);
  /** @type {Object<string, (a: Sample, b: Sample) => number>} */
  const orders = {
    worst: (a, b) => last(a.iou) - last(b.iou),
    best: (a, b) => last(a.iou === null ? null : -a.iou) - last(b.iou === null ? null : -b.iou),
    confidence: (a, b) => last(a.confidence) - last(b.confidence),
    id: (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  };
  const order = orders[STATE.sort];
  // Infinity less Infinity is no number; such samples keep their order.
  return order ? samples.slice().sort((a, b) => order(a, b) || 0) : samples;
}

/** @param {Sample} sample */
function card(sample) {
  const picture = pictureSvg(sample, `${sample.phrase}: predicted and true box`,
    boxLayer(sample.truth, sample, TRUTH, "truth", 3), boxLayer(sample.box, sample, PREDICTED, "predicted"));
  return h("li", { class: "card", "data-id": sample.id },
    h("button", { type: "button", class: "open", onclick: () => openSample(sample.id) },
      h("span", { class: "frame" }, picture),
      h("span", { class: "phrase" }, ...phraseNodes(sample)),
      h("span", { class: "facts" }, ...cardFacts(sample)),
      h("span", { class: "id" }, sample.id)));
}

/** @param {Sample} sample */
function cardFacts(sample) {
  const kind = DATA.kinds.find(({ key }) => key === sample.kind);
  return [
    sample.iou === null ? null : h("span", { class: "iou" }, `IoU ${sample.iou.toFixed(2)}`),
    kind === undefined ? null : h("span", { class: `kind ${kind.key}`, title: kind.rule }, kind.name),
    sample.sizeClass === null ? null : h("span", { class: "size" }, sample.sizeClass),
    sample.confidence === null ? null : h("span", { class: "confidence" }, `confidence ${sample.confidence.toFixed(2)}`),
    h("span", { class: "heads" }, sample.heads.map(headName).join(" ")),
  ];
}

function kindRules() {
  if (!DATA.kinds.length) return null;
  const rules = h("dl", {});
  for (const { name, rule } of DATA.kinds) rules.append(h("dt", {}, name), h("dd", {}, rule));
  return h("details", { class: "rules" }, h("summary", {}, "How the kinds are told"), rules);
}

function failureList() {
  if (!DATA.failures.length) return null;
  const items = DATA.failures.map(({ id, reason }) => h("li", {}, h("code", {}, id), " ", reason));
  return h("details", { class: "rules", id: "failures" },
    h("summary", {}, `${DATA.failures.length} rows that the run could not finish`), h("ul", {}, ...items));
}
