// Making elements. Whatever comes from data becomes a text node or the value of an
// attribute: there is no way here from a string to markup.

const SVG = "http://www.w3.org/2000/svg";

// h makes an HTML element. Children are nodes or strings; null and undefined are
// left out, of attributes, too.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// s makes an SVG element.
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

// setText changes a text only where it is another, so that a selection and a screen
// reader are left in peace.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// setAttribute is setText for an attribute; null takes it away.
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// setList fills a <dl> with pairs of a term and its description, both strings.
export function setList(list, pairs) {
  while (list.children.length > pairs.length * 2) list.lastElementChild.remove();
  for (const [i, [term, description]] of pairs.entries()) {
    if (!list.children[2 * i]) list.append(h("dt"), h("dd"));
    setText(list.children[2 * i], term);
    setText(list.children[2 * i + 1], description);
  }
}

export const byId = (id) => document.getElementById(id);
