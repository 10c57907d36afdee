// Charts of the last minutes: lines over time, with axes, units, and a cursor that the
// mouse or the arrow keys move.

import { h, s, setAttribute, setText } from "./dom.js";
import { clock, minute, none } from "./format.js";

const edge = { left: 66, right: 20, top: 8, bottom: 22 };

// A Chart shows lines of points {at, …}. Of settings: title; height; lines: [{name,
// field}]; format(value); steps, "binary" or "decimal", how the axis is divided;
// moved(at), told where the cursor is, null for nowhere.
export class Chart {
  #settings;
  #plot = h("div", { class: "plot", tabindex: 0, role: "slider" });
  #legend = h("p", { class: "legend" });
  #when = h("span", { class: "when" });
  #values = [];
  #points = [];
  #from = 0;
  #to = 0;
  #width = 0;
  #cursor = null;

  constructor(settings) {
    this.#settings = settings;
    for (const [i, line] of settings.lines.entries()) {
      const value = h("span", { class: "value" });
      this.#values.push(value);
      this.#legend.append(h("span", { class: "key" }, h("span", { class: `swatch line${i}` }), `${line.name} `, value));
    }
    this.#legend.append(this.#when);
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, h("h3", {}, settings.title), this.#legend), this.#plot);
    this.#plot.addEventListener("pointermove", (event) => settings.moved(this.#at(event.offsetX)));
    this.#plot.addEventListener("pointerleave", () => settings.moved(null));
    this.#plot.addEventListener("blur", () => settings.moved(null));
    this.#plot.addEventListener("keydown", (event) => this.#step(event));
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      requestAnimationFrame(() => this.#draw()); // not while the browser measures
    }).observe(this.#plot);
  }

  // show draws the points between two moments, in ms.
  show(points, from, to) {
    [this.#points, this.#from, this.#to] = [points, from, to];
    this.#draw();
  }

  // point puts the cursor at the point next to a moment; null takes it away.
  point(at) {
    this.#cursor = at;
    this.#draw();
  }

  #at(x) {
    const share = (x - edge.left) / (this.#width - edge.left - edge.right);
    return this.#from + Math.max(0, Math.min(1, share)) * (this.#to - this.#from);
  }

  #step(event) {
    const last = this.#points.length - 1;
    const now = this.#cursor === null ? last : this.#nearest(this.#cursor);
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - 12, PageDown: now + 12, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#settings.moved(null);
    if (to === undefined || last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#settings.moved(this.#points[Math.max(0, Math.min(last, to))].at);
  }

  #nearest(at) {
    let best = 0;
    for (const [i, p] of this.#points.entries()) {
      if (Math.abs(p.at - at) < Math.abs(this.#points[best].at - at)) best = i;
    }
    return best;
  }

  #draw() {
    if (this.#width === 0 || this.#to === 0) return;
    const { height, lines, format } = this.#settings;
    const ticks = divide(Math.max(0, ...this.#points.flatMap((p) => lines.map((l) => p[l.field] ?? 0))), this.#settings.steps);
    const inner = { w: Math.max(1, this.#width - edge.left - edge.right), h: height - edge.top - edge.bottom };
    const x = (at) => edge.left + ((at - this.#from) / (this.#to - this.#from)) * inner.w;
    const y = (value) => edge.top + inner.h * (1 - value / ticks.at(-1));
    const svg = s("svg", { width: this.#width, height, "aria-hidden": "true" });
    for (const tick of ticks) {
      const at = Math.round(y(tick)) + 0.5;
      svg.append(s("line", { class: "grid", x1: edge.left, x2: this.#width - edge.right, y1: at, y2: at }));
      svg.append(s("text", { class: "axis", x: edge.left - 8, y: at + 4, "text-anchor": "end" }, tick === 0 ? "0" : trim(format(tick))));
    }
    for (const at of times(this.#from, this.#to, inner.w)) {
      svg.append(s("text", { class: "axis", x: x(at), y: height - 5, "text-anchor": "middle" }, minute(at)));
    }
    for (const [i, line] of [...lines.entries()].reverse()) {
      svg.append(s("path", { class: `line line${i}`, d: path(this.#points, line.field, x, y) }));
    }
    const point = this.#cursor === null ? this.#points.at(-1) : this.#points[this.#nearest(this.#cursor)];
    if (this.#cursor !== null && point) this.#mark(svg, point, x, y, height);
    this.#plot.replaceChildren(svg);
    this.#tell(point);
  }

  #mark(svg, point, x, y, height) {
    svg.append(s("line", { class: "cursor", x1: x(point.at), x2: x(point.at), y1: edge.top, y2: height - edge.bottom }));
    for (const [i, line] of this.#settings.lines.entries()) {
      const value = point[line.field];
      if (value !== null) svg.append(s("circle", { class: `dot line${i}`, cx: x(point.at), cy: y(value), r: 3.5 }));
    }
  }

  #tell(point) {
    const { title, lines, format } = this.#settings;
    const values = lines.map((line) => (point ? format(point[line.field]) : none));
    for (const [i, value] of values.entries()) setText(this.#values[i], value);
    setText(this.#when, this.#cursor === null ? "now" : clock(point?.at));
    setAttribute(this.#plot, "aria-label", `${title}, arrow keys move through time`);
    setAttribute(this.#plot, "aria-valuemin", "0");
    setAttribute(this.#plot, "aria-valuemax", String(Math.max(0, this.#points.length - 1)));
    setAttribute(this.#plot, "aria-valuenow", String(point ? this.#points.indexOf(point) : 0));
    setAttribute(this.#plot, "aria-valuetext", `${this.#cursor === null ? "Now" : clock(point?.at)}: ${lines.map((line, i) => `${line.name} ${values[i]}`).join(", ")}`);
  }
}

// path goes through the points that are known.
function path(points, field, x, y) {
  let d = "";
  let pen = "M";
  for (const point of points) {
    const value = point[field];
    if (value === null) {
      pen = "M";
      continue;
    }
    d += `${pen}${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return d;
}

// divide returns the marks of an axis from 0 to above the highest value: four or fewer
// steps, each a power of two or 1, 2 or 5 times a power of ten.
function divide(highest, kind) {
  const most = 4;
  let step;
  if (kind === "binary") {
    step = 2 ** Math.ceil(Math.log2(Math.max(highest, 1024) / most));
  } else {
    const least = Math.max(highest, 0.0004) / most;
    const power = 10 ** Math.floor(Math.log10(least));
    step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least * 0.999999);
  }
  const marks = Math.max(1, Math.ceil(highest / step - 1e-9));
  return Array.from({ length: marks + 1 }, (_, i) => i * step);
}

// times returns the moments to be named below a chart of that width: full minutes.
function times(from, to, width) {
  const minutes = [1, 2, 5, 10, 15].find((n) => ((to - from) / 60000 / n) * 56 < width) ?? 30;
  const step = minutes * 60000;
  const all = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) all.push(at);
  return all;
}

// trim takes zeros away that say nothing on an axis.
const trim = (text) => text.replace(/\.0+(?= )/, "").replace(/(\.\d*?)0+(?= )/, "$1");
