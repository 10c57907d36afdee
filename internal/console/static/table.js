// Tables that live: sorted, filtered, and changed in place, so that focus, selection
// and scroll position stay where they are.

import { h, byId, setAttribute, setList, setText } from "./dom.js";
import { count } from "./format.js";

const collator = new Intl.Collator("en", { numeric: true });

// A Table shows rows by columns. Of settings:
//   id, title      of the section that it makes, with the caption
//   columns        [{title, value(row), text(row), number, state(row), wide}]: what is sorted
//                  by, what is shown, whether it stands at the right, and how it is marked;
//                  the first one names the row
//   key(row)       which row is which from one answer to the next
//   empty          what stands in the place of no rows
//   sort           the column and direction at the beginning: [index, "ascending"]
//   filter         whether there is a field for it
//   limits         how many rows may be asked for; limited(n) is told the choice
//   details(row)   all of a row's values: [[term, description]]
export class Table {
  #settings;
  #rows = [];
  #shown = []; // keys, in their order
  #lines = new Map(); // by key: {line, cells, row}
  #sort;
  #current = null; // key of the row that had the focus last
  #body = h("tbody");
  #heads = [];
  #note = h("p", { class: "note" });
  #nothing = h("p", { class: "nothing" });
  #leftOff = 0;
  #filter = null;
  #saying = 0;

  constructor(settings) {
    this.#settings = settings;
    this.#sort = settings.sort ?? [0, "ascending"];
    const id = settings.id;
    const heading = h("div", { class: "heading" }, h("h2", { id: `${id}-title`, tabindex: -1 }, settings.title), ...this.#controls());
    const caption = h("caption", { class: "hidden" }, settings.title);
    const table = h("table", { role: "table" }, caption, h("thead", { role: "rowgroup" }, this.#head()), this.#body);
    this.#body.setAttribute("role", "rowgroup");
    this.table = table;
    this.element = h("section", { id, "aria-labelledby": `${id}-title` }, heading, h("div", { class: "scroll" }, table), this.#nothing, this.#note);
    this.#body.addEventListener("click", (event) => this.#open(event));
    this.#body.addEventListener("keydown", (event) => this.#walk(event));
  }

  get filter() {
    return this.#filter;
  }

  #controls() {
    const { id, filter, limits } = this.#settings;
    const controls = [];
    if (filter) {
      this.#filter = h("input", { type: "search", id: `${id}-filter`, placeholder: "Filter", "aria-label": `Filter ${this.#settings.title.toLowerCase()}`, maxlength: 200, spellcheck: "false", autocomplete: "off" });
      this.#filter.addEventListener("input", () => {
        this.#render();
        this.#say();
      });
      controls.push(this.#filter);
    }
    if (limits) {
      const choice = h("select", { id: `${id}-limit` }, ...limits.map((n) => h("option", { value: n }, `newest ${count(n)}`)));
      choice.addEventListener("change", () => this.#settings.limited(Number(choice.value)));
      controls.push(h("label", {}, h("span", { class: "hidden" }, "How many "), choice));
    }
    return controls;
  }

  #head() {
    const cells = this.#settings.columns.map((column, i) => {
      const button = h("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.#sortBy(i));
      const cell = h("th", { scope: "col", role: "columnheader", class: column.number ? "number" : null }, button);
      this.#heads.push(cell);
      return cell;
    });
    this.#markSort();
    return h("tr", { role: "row" }, ...cells);
  }

  #sortBy(i) {
    const [column, direction] = this.#sort;
    const first = this.#settings.columns[i].number ? "descending" : "ascending";
    const other = direction === "ascending" ? "descending" : "ascending";
    this.#sort = [i, column === i ? other : first];
    this.#markSort();
    this.#render();
  }

  #markSort() {
    for (const [i, cell] of this.#heads.entries()) setAttribute(cell, "aria-sort", i === this.#sort[0] ? this.#sort[1] : null);
  }

  // update shows these rows; leftOff is how many more there are.
  update(rows, leftOff = 0) {
    this.#rows = rows;
    this.#leftOff = leftOff;
    this.#render();
  }

  #render() {
    const rows = this.#matching().sort((a, b) => this.#compare(a, b));
    const before = this.#focused();
    const keys = rows.map((row) => this.#settings.key(row));
    const stay = new Set(keys);
    for (const [key, entry] of this.#lines) {
      if (stay.has(key)) continue;
      entry.line.remove();
      this.#lines.delete(key);
    }
    let next = this.#body.firstChild;
    for (const [i, row] of rows.entries()) {
      const entry = this.#lines.get(keys[i]) ?? this.#make(keys[i]);
      this.#fill(entry, row);
      if (entry.line === next) next = next.nextSibling;
      else this.#body.insertBefore(entry.line, next);
    }
    this.#refocus(before, keys);
    this.#shown = keys;
    this.#explain(rows.length);
  }

  #matching() {
    const words = (this.#filter?.value ?? "").toLowerCase().split(/\s+/).filter((word) => word);
    if (words.length === 0) return [...this.#rows];
    return this.#rows.filter((row) => {
      const all = this.#settings.details(row).map(([, text]) => text).join("\n").toLowerCase();
      return words.every((word) => all.includes(word));
    });
  }

  #compare(a, b) {
    const [i, direction] = this.#sort;
    const { value } = this.#settings.columns[i];
    const order = compare(value(a), value(b)) * (direction === "ascending" ? 1 : -1);
    return order || compare(this.#settings.key(a), this.#settings.key(b));
  }

  #make(key) {
    const cells = this.#settings.columns.map((column, i) => {
      const role = i === 0 ? "rowheader" : "cell";
      const cell = h(i === 0 ? "th" : "td", { role, scope: i === 0 ? "row" : null, "data-title": column.title, class: [column.number ? "number" : "", column.wide ? "wide" : ""].join(" ").trim() || null });
      if (i === 0) cell.append(h("button", { type: "button", class: "row", tabindex: -1 }));
      return cell;
    });
    const line = h("tr", { role: "row" }, ...cells);
    const entry = { line, cells, row: null };
    line.dataset.key = key;
    this.#lines.set(key, entry);
    return entry;
  }

  #fill(entry, row) {
    entry.row = row;
    for (const [i, column] of this.#settings.columns.entries()) {
      const cell = entry.cells[i];
      setText(i === 0 ? cell.firstChild : cell, cut(column.text(row)));
      if (column.state) setAttribute(cell, "data-state", column.state(row));
    }
  }

  #focused() {
    const line = document.activeElement?.closest?.("tr");
    return line && this.#body.contains(line) ? line.dataset.key : null;
  }

  // #refocus keeps the focus on its row, though that was moved; where the row is no
  // more, on the one that has its place. Tab goes to the row that had the focus last,
  // or to the first one.
  #refocus(before, keys) {
    if (before !== null) this.#current = this.#lines.has(before) ? before : (keys[Math.min(this.#shown.indexOf(before), keys.length - 1)] ?? null);
    else if (!this.#lines.has(this.#current)) this.#current = null;
    const stop = this.#current ?? keys[0];
    for (const [key, entry] of this.#lines) setAttribute(entry.cells[0].firstChild, "tabindex", key === stop ? "0" : "-1");
    if (before === null) return;
    const button = this.#lines.get(this.#current)?.cells[0].firstChild ?? byId(`${this.#settings.id}-title`);
    if (document.activeElement !== button) button.focus({ preventScroll: true });
  }

  #explain(matching) {
    const all = this.#rows.length;
    setText(this.#nothing, all === 0 ? this.#settings.empty : matching === 0 ? "Nothing here matches the filter." : "");
    const parts = [];
    if (matching < all) parts.push(`${count(matching)} of ${count(all)} match the filter.`);
    if (this.#leftOff > 0) parts.push(`${count(this.#leftOff)} older ones are not shown.`);
    setText(this.#note, parts.join(" "));
    this.table.parentElement.hidden = matching === 0;
  }

  // #say tells a screen reader what the filter has left, when the typing rests.
  #say() {
    clearTimeout(this.#saying);
    this.#saying = setTimeout(() => setText(byId("say"), `${this.#settings.title}: ${count(this.#shown.length)} of ${count(this.#rows.length)} match`), 500);
  }

  #open(event) {
    const line = event.target.closest("tr");
    const copies = event.detail > 0 && getSelection().toString() !== ""; // with the mouse
    if (!line || copies) return;
    this.#go(line.dataset.key);
    const { row } = this.#lines.get(line.dataset.key);
    setText(byId("details-title"), this.#settings.columns[0].text(row));
    setList(byId("details-list"), this.#settings.details(row));
    byId("details").showModal();
  }

  #walk(event) {
    const at = this.#shown.indexOf(this.#focused());
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.#shown.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (this.#shown[to] !== undefined) this.#go(this.#shown[to]);
  }

  #go(key) {
    this.#current = key;
    for (const [other, entry] of this.#lines) setAttribute(entry.cells[0].firstChild, "tabindex", other === key ? "0" : "-1");
    this.#lines.get(key).cells[0].firstChild.focus();
  }
}

// cut keeps a cell to some lines; details have the whole.
const cut = (text) => (text.length > 120 ? `${text.slice(0, 119)}…` : text);

// compare orders numbers and strings; what is unknown comes first.
function compare(a, b) {
  if (typeof a === "string" && typeof b === "string") return collator.compare(a, b);
  const x = a ?? -Infinity;
  const y = b ?? -Infinity;
  return x < y ? -1 : x > y ? 1 : 0;
}
