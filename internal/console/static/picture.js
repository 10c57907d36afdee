// Drawing a graph as SVG: columns side by side where there is room, else rows, one
// below the other, of the same nodes.

import { h, s, setText } from "./dom.js";

const nodeHeight = 64;
const gapAcross = 16; // between nodes of one column
const gapAlong = 36; // between columns, at least
const gapMost = 110;
const widest = 184;
const narrowest = 112; // a column; below it the columns become rows
const fewest = 3; // nodes of a row

// A Picture shows one graph after the other in a place of its own.
export class Picture {
  #title = h("h3");
  #drawing = h("div", { class: "drawing" });
  #detail = h("p", { class: "detail" });
  #faults = h("ul", { class: "faults" });
  #drawn = "";
  #graph = null;
  #width = 0;

  constructor() {
    this.element = h("div", { class: "picture" }, this.#title, this.#drawing, this.#detail, this.#faults);
    const tell = (event) => this.#tell(event.target.closest?.("[data-node]"));
    for (const name of ["focusin", "pointerover"]) this.#drawing.addEventListener(name, tell);
    for (const name of ["focusout", "pointerleave"]) this.#drawing.addEventListener(name, () => this.#tell(null));
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      requestAnimationFrame(() => this.#draw()); // not while the browser measures
    }).observe(this.#drawing);
  }

  show(graph) {
    this.#graph = graph;
    setText(this.#title, graph.title);
    this.#title.hidden = graph.title === "";
    this.#draw();
  }

  // #draw draws what is not drawn already, and leaves the focus where it is.
  #draw() {
    if (!this.#graph || this.#width === 0) return;
    const drawn = JSON.stringify([this.#graph, this.#width]);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const focused = this.#drawing.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    this.#drawing.replaceChildren(draw(this.#graph, this.#width));
    if (focused) this.#find(focused)?.focus({ preventScroll: true });
    this.#listFaults();
  }

  #find(id) {
    return [...this.#drawing.querySelectorAll("[data-node]")].find((node) => node.dataset.node === id);
  }

  // #listFaults says as text what the picture says in red.
  #listFaults() {
    const failed = this.#graph.columns.flat().filter((n) => n.state === "failed" && n.detail);
    const texts = [...new Set(failed.map((n) => n.detail))];
    this.#faults.replaceChildren(...texts.map((text) => h("li", {}, text)));
  }

  #tell(node) {
    const id = node?.dataset.node;
    const known = id && this.#graph.columns.flat().find((n) => n.id === id);
    setText(this.#detail, known ? known.detail : "");
  }
}

function draw(graph, width) {
  const columns = graph.columns.length;
  const room = (width - gapAlong * (columns - 1)) / columns;
  const upright = room < narrowest;
  const places = upright ? placeRows(graph, width) : placeColumns(graph, width, Math.min(widest, room));
  const svg = s("svg", { class: "graph", viewBox: `0 0 ${width} ${places.height}`, width, height: places.height, role: "group", "aria-label": graph.title || "Route" });
  for (const state of ["idle", "spare", "failed", "moving", "used"]) {
    for (const edge of graph.edges.filter((e) => e.state === state)) {
      const from = places.get(edge.from);
      const to = places.get(edge.to);
      if (from && to) svg.append(line(from, to, state, upright));
    }
  }
  for (const node of graph.columns.flat()) {
    const place = places.get(node.id);
    if (place && node.kind !== "point") svg.append(box(node, place));
  }
  return svg;
}

// A Places holds rectangles {x, y, w, h} by a node's id, and the height of all.
class Places extends Map {
  height = 0;
}

function placeColumns(graph, width, w) {
  const places = new Places();
  const rows = Math.max(...graph.columns.map((c) => c.length));
  places.height = rows * (nodeHeight + gapAcross) - gapAcross + 2;
  const gap = Math.min(gapMost, (width - w * graph.columns.length - 2) / Math.max(1, graph.columns.length - 1));
  for (const [i, column] of graph.columns.entries()) {
    const used = column.length * (nodeHeight + gapAcross) - gapAcross;
    for (const [j, node] of column.entries()) {
      places.set(node.id, { x: 1 + i * (w + gap), y: 1 + (places.height - 2 - used) / 2 + j * (nodeHeight + gapAcross), w, h: nodeHeight, point: node.kind === "point" });
    }
  }
  return places;
}

function placeRows(graph, width) {
  const places = new Places();
  let y = 1;
  const gap = 8;
  for (const column of graph.columns) {
    for (let at = 0; at < column.length; at += fewest) {
      const row = column.slice(at, at + fewest);
      const w = Math.min(widest, (width - 2 - gap * (row.length - 1)) / row.length);
      const left = (width - row.length * w - gap * (row.length - 1)) / 2;
      for (const [j, node] of row.entries()) places.set(node.id, { x: left + j * (w + gap), y, w, h: nodeHeight, point: node.kind === "point" });
      y += nodeHeight + (at + fewest < column.length ? gap : 28);
    }
  }
  places.height = y - 28 + 1;
  return places;
}

// line joins two places. It goes straight through one that is no more than a point.
function line(from, to, state, upright) {
  const [x1, y1, x2, y2] = upright
    ? [from.x + from.w / 2, from.y + from.h, to.x + to.w / 2, to.y]
    : [from.x + from.w, from.y + from.h / 2, to.x, to.y + to.h / 2];
  const through = !from.point ? "" : upright ? `M${x1} ${from.y}V${y1}` : `M${from.x} ${y1}H${x1}`;
  const curve = upright
    ? `C${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2} ${x2} ${y2}`
    : `C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
  return s("path", { d: `${through || `M${x1} ${y1}`}${curve}`, class: `edge ${state}` });
}

// box is a node with its texts. The dot's form says what its colour does.
function box(node, { x, y, w, h: height }) {
  const room = w - 20;
  const name = [node.title, node.sub, node.label].filter((part) => part).join(", ");
  return s(
    "g",
    { class: `node ${node.kind} ${node.state}`, "data-node": node.id, tabindex: 0, role: "img", "aria-label": node.detail || name, transform: `translate(${x} ${y})` },
    s("title", {}, node.detail || name),
    s("rect", { width: w, height, rx: 8 }),
    s("text", { x: 10, y: 21, class: "title" }, fit(node.title, room, 13)),
    s("text", { x: 10, y: 38, class: "sub" }, fit(node.sub || "", room, 12)),
    node.label ? mark(node.state, 14, 51) : null,
    s("text", { x: 24, y: 55, class: "label" }, fit(node.label || "", room - 14, 12)),
  );
}

function mark(state, x, y) {
  if (state === "failed") return s("path", { class: "mark", d: `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7` });
  return s("circle", { class: "mark", cx: x, cy: y, r: 3.5 });
}

const ruler = document.createElement("canvas").getContext("2d");

// fit takes the middle out of what is too long: both ends of an address say something.
function fit(text, width, size) {
  ruler.font = `600 ${size}px ${getComputedStyle(document.documentElement).fontFamily}`;
  if (ruler.measureText(text).width <= width) return text;
  const letters = [...text].slice(0, 200);
  for (let n = letters.length - 1; n > 1; n--) {
    const shorter = `${letters.slice(0, Math.ceil(n / 2)).join("")}…${letters.slice(letters.length - Math.floor(n / 2)).join("")}`;
    if (ruler.measureText(shorter).width <= width) return shorter;
  }
  return "…";
}
