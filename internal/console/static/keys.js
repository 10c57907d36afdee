// The switch between light and dark, and the keys that lead through the page.

import { byId, setText } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

// What is stored is a wish: where storage is off it holds as long as the page.
function store(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // It is off.
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

const shown = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");

// changeTheme goes to the other one. The choice that the system makes too is none, so
// that the page follows it again.
function changeTheme() {
  const next = shown() === "dark" ? "light" : "dark";
  const system = dark.matches ? "dark" : "light";
  if (next === system) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  store("culvert-theme", next === system ? null : next);
  nameTheme();
}

// nameTheme says on the button what it does.
function nameTheme() {
  setText(byId("theme"), shown() === "dark" ? "Light" : "Dark");
}

// keys sets up the page's buttons and keys; tables returns the tables that it has.
export function keys(tables) {
  nameTheme();
  dark.addEventListener("change", nameTheme);
  byId("theme").addEventListener("click", changeTheme);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  const on = byId("keys-on");
  on.checked = stored("culvert-keys") !== "off";
  on.addEventListener("change", () => store("culvert-keys", on.checked ? null : "off"));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside it
    });
  }
  document.addEventListener("keydown", (event) => {
    if (on.checked && !event.ctrlKey && !event.altKey && !event.metaKey && !typing(event.target)) press(event, tables);
  });
}

// typing reports whether a letter belongs to the element.
const typing = (element) => element.closest?.("input[type=search], select, textarea, dialog[open]") !== null;

function press(event, tables) {
  const actions = {
    "/": () => tables().find((t) => t.filter && !t.element.hidden)?.filter.focus(),
    p: () => byId("pause").click(),
    t: changeTheme,
    "?": () => byId("keys").showModal(),
  };
  const action = actions[event.key] ?? (/^[1-9]$/.test(event.key) ? () => go(Number(event.key)) : null);
  if (!action) return;
  event.preventDefault();
  action();
}

// go puts the focus on the heading of the n-th section.
function go(n) {
  const headings = [...document.querySelectorAll("main section:not([hidden]) h2")];
  headings[n - 1]?.focus();
  headings[n - 1]?.scrollIntoView({ block: "start" });
}
