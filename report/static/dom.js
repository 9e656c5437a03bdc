// @ts-check
// Elements from values; text is only ever set as text.

/**
 * @typedef {Object<string, string | number | boolean | null | ((event: any) => void)>} Props
 * @typedef {Node | string | null} Child
 */

/**
 * An HTML element; `on...` properties are listeners, false and null ones are left out.
 * @param {string} tag
 * @param {Props} [props]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, props, children);
  return element;
}

/**
 * The same for SVG.
 * @param {string} tag
 * @param {Props} [props]
 * @param {...Child} children
 * @returns {SVGElement}
 */
function s(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, props, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Props} props
 * @param {Child[]} children
 */
function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child !== null) element.append(child);
  }
}

/**
 * Put children in place of what an element holds.
 * @param {Element} element
 * @param {...Child} children
 */
function put(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null));
}

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`Expected the page to have an element ${id}, but it has none.`);
  return element;
}

/** @param {string} text */
function announce(text) {
  byId("announcement").textContent = text;
}

/**
 * A labelled list of choices.
 * @param {string} label
 * @param {string} id
 * @param {[string, string][]} options Value and text.
 * @param {string} value
 * @param {(value: string) => void} change
 */
function selectField(label, id, options, value, change) {
  const list = h("select", { id, onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) list.append(h("option", { value: key, selected: key === value }, text));
  return h("label", { class: "field", for: id }, h("span", {}, label), list);
}

/**
 * A labelled slider that shows its value.
 * @param {string} label
 * @param {string} id
 * @param {{min: number, max: number, step: number, value: number}} range
 * @param {(value: number) => void} change
 */
function sliderField(label, id, range, change) {
  const shown = h("output", { for: id }, formatNumber(range.value));
  const input = h("input", {
    id, type: "range", min: range.min, max: range.max, step: range.step, value: range.value,
    oninput: (event) => {
      shown.textContent = formatNumber(Number(event.target.value));
      change(Number(event.target.value));
    },
  });
  return h("label", { class: "field slider", for: id }, h("span", {}, label, " ", shown), input);
}

/** @param {number | null | undefined} value */
function formatNumber(value) {
  if (value === null || value === undefined) return "none";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return String(Number(value.toFixed(3)));
}

/** @param {number[] | null} box */
function formatBox(box) {
  return box === null ? "none" : box.map((edge) => edge.toFixed(1)).join(", ");
}
