// @ts-check
// What can be taken away: the view as SVG, the sample as a row of CSV, the command, the link.

/** @param {HTMLElement} place */
function exportButtons(place) {
  const button = (/** @type {string} */ id, /** @type {string} */ text, /** @type {() => void} */ act) =>
    h("button", { type: "button", id, onclick: act }, text);
  put(place, button("save-svg", "Save SVG", () => saveText(svgText(), "svg", "image/svg+xml")),
    button("save-csv", "Save CSV row", () => saveText(csvText(), "csv", "text/csv")),
    button("show-command", "Command", () => showText("The command that reproduces this view", commandText())),
    button("show-link", "Link", () => showText("The link to this view", location.href)));
}

/** The picture with all that lies over it, as a file of its own. */
function svgText() {
  const shown = document.querySelector("#stage svg");
  if (shown === null) return "";
  const copy = /** @type {SVGElement} */ (shown.cloneNode(true));
  const sample = currentSample();
  for (const cursor of copy.querySelectorAll(".cursor")) cursor.remove();
  for (const name of ["tabindex", "role", "aria-roledescription"]) copy.removeAttribute(name);
  if (sample) {
    copy.setAttribute("width", String(sample.size[0]));
    copy.setAttribute("height", String(sample.size[1]));
    copy.prepend(s("title", {}, `${sample.phrase} (${STATE.heads.map(headName).join(" ")})`));
  }
  return new XMLSerializer().serializeToString(copy);
}

function csvText() {
  const sample = currentSample();
  const box = EXPLORER.found ? EXPLORER.found.box : null;
  const iou = sample && sample.truth && EXPLORER.found ? iouOf(box, sample.truth) : null;
  const columns = ["id", "phrase", "heads", "sigma", "truncate", "relative_threshold", "region", "edges", "x0", "y0", "x1", "y1", "iou"];
  const values = [sample ? sample.id : "", sample ? sample.phrase : "", STATE.heads.map(headName).join(" "), STATE.sigma, STATE.truncate,
    STATE.threshold, STATE.region, STATE.edges, ...(box === null ? ["", "", "", ""] : box), iou === null ? "" : iou];
  return `${columns.join(",")}\r\n${values.map(csvField).join(",")}\r\n`;
}

/**
 * A field of CSV; one that a spreadsheet would take for a formula is marked as text.
 * @param {string | number} value
 */
function csvField(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** A command on a copy of the attention file: the results of the run, which lie beside the file itself, stay. */
function commandText() {
  const sample = currentSample();
  if (!sample) return DATA.command;
  const heads = STATE.heads.map(headName).join(",");
  const copy = `views/${sample.file.replace(/\\/g, "/").split("/").pop()}`;
  return [
    `mkdir -p views && cp ${quoted(sample.file)} views/ &&`,
    "python pipeline.py stage=visualize", quoted(`data.attention_file=${hydraText(copy)}`), quoted(`logic.manual_heads=[${heads}]`),
    "logic.force_manual_heads=true", `logic.top_k=${Math.max(STATE.heads.length, 1)}`, `logic.smoothing.sigma=${STATE.sigma}`,
    `logic.smoothing.truncate=${STATE.truncate}`, `logic.mask.region=${STATE.region}`, `logic.mask.relative_threshold=${STATE.threshold}`,
    ...(STATE.edges === "cells" ? [] : [`logic.mask.edges=${STATE.edges}`, `logic.mask.edge_most=${STATE.edgeMost}`, `logic.mask.edge_power=${STATE.edgePower}`]),
  ].join(" ");
}

/** @param {string} text For Hydra, whose grammar gives some characters a meaning. */
function hydraText(text) {
  return /^[\w./~-]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`;
}

/** @param {string} text For a shell. */
function quoted(text) {
  return /^[\w./~=-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

/**
 * @param {string} text
 * @param {string} ending
 * @param {string} type
 */
function saveText(text, ending, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const name = `${STATE.id.replace(/[^\w.-]/g, "_") || "view"}_${STATE.heads.map(headName).join("_")}.${ending}`;
  const link = h("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
  announce(`${name} is saved.`);
}

/**
 * @param {string} title
 * @param {string} text
 */
function showText(title, text) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("text-dialog"));
  byId("text-title").textContent = title;
  const field = /** @type {HTMLTextAreaElement} */ (byId("text-field"));
  field.value = text;
  dialog.showModal();
  field.select();
}
