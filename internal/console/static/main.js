// The console of one process: asks the admin server for what it says of itself, and
// shows that. It changes nothing.

import { Chart } from "./chart.js";
import { byId, h, setList, setText } from "./dom.js";
import { bytes, clock, count, latency, moment, rate } from "./format.js";
import { graphs } from "./graph.js";
import { History } from "./history.js";
import { keys } from "./keys.js";
import { Live } from "./live.js";
import { Picture } from "./picture.js";
import { Rates } from "./rates.js";
import { counters, facts, makeTables } from "./tables.js";

const names = new Map([["inlet", "Inlet"], ["outlet", "Outlet"], ["relay", "Relay"], ["authority", "Authority"]]);

// Words for what passes and its two directions, and the fields that count them.
const ofRelay = { fields: ["bytes_to_target", "bytes_to_caller"], words: ["To target", "To caller"], active: ["Joins", "joins_active", "joins_opened"] };
const ofOthers = { fields: ["bytes_to_service", "bytes_to_client"], words: ["To service", "To client"], active: ["Streams", "streams_active", "streams_opened"] };

const shortest = 5 * 60 * 1000; // ms that a chart shows at least

let role = null; // whose page has been made
let direction = ofOthers;
let tables = [];
let pictures = [];
let charts = [];
let span = 30 * 60 * 1000; // ms
let lastAnswer = null; // ms, of this machine's clock: when there was one
let lost = false;
const history = new History();
const rates = new Rates();
const live = new Live(take, loseIt);

// take shows an answer.
function take(answer) {
  const { status, ready } = answer;
  const now = moment(status.now) || Date.now();
  if (status.role !== role) make(status.role);
  if (lost) found();
  lastAnswer = Date.now();
  setText(byId("live"), `Live, as of ${clock(lastAnswer)}`);
  const totals = status.totals ?? {};
  const [to, from] = direction.fields;
  if (answer.history) begin(answer.history);
  if (typeof totals[to] === "number") history.add({ at: now, to: totals[to], from: totals[from], rtt: ping(status) });
  const sums = rates.update(now, [["all", [totals[to], totals[from]]], ...counters(status)]);
  showReady(ready);
  showSummary(status, sums.get("all"));
  showPictures(status);
  showCharts(now);
  for (const t of tables) t.update(status, now, sums);
  setList(byId("facts"), facts(status, now));
}

// begin takes what the process remembers; what follows is compared with that.
function begin(remembered) {
  history.replace(remembered, direction.fields);
  const { last } = history;
  if (last) rates.update(last.at, [["all", [last.to, last.from]]]);
}

// ping is the slowest channel's, in seconds; 0 if none is known.
const ping = (status) => Math.max(0, ...(status.channels ?? []).map((c) => c.path?.ping_seconds ?? 0));

// make makes the page of a role.
function make(name) {
  role = name;
  direction = role === "relay" ? ofRelay : ofOthers;
  setText(byId("role"), names.get(role) ?? role ?? "");
  tables = makeTables(role, (n) => {
    live.limit = n;
  });
  byId("tables").replaceChildren(...tables.map((t) => t.table.element));
  pictures = [];
  byId("pictures").replaceChildren();
  makeCharts();
  for (const id of ["routes", "traffic"]) byId(id).hidden = false;
}

function makeCharts() {
  const moved = (at) => charts.forEach((chart) => chart.point(at));
  const [to, from] = direction.words;
  charts = [new Chart({ title: "Throughput", height: 190, steps: "binary", format: rate, moved, lines: [{ name: to, field: "to" }, { name: from, field: "from" }] })];
  if (role !== "relay") charts.push(new Chart({ title: "Round trip", height: 120, steps: "decimal", format: latency, moved, lines: [{ name: "slowest channel", field: "rtt" }] }));
  byId("charts").replaceChildren(...charts.map((chart) => chart.element));
}

// showCharts shows the time that is asked for, or as much of it as is remembered.
function showCharts(now) {
  const from = Math.max(now - span, Math.min(history.since, now - shortest));
  const points = history.points(from);
  for (const chart of charts) chart.show(points, from, now);
}

function showPictures(status) {
  const { list, left } = graphs(status);
  while (pictures.length > list.length) pictures.pop().element.remove();
  for (const [i, graph] of list.entries()) {
    if (!pictures[i]) {
      pictures.push(new Picture());
      byId("pictures").append(pictures[i].element);
    }
    pictures[i].show(graph);
  }
  setText(byId("routes-title"), left > 0 ? `Routes (the first ${list.length} of ${list.length + left})` : "Routes");
  byId("routes").hidden = list.length === 0;
}

function showReady(ready) {
  const pill = byId("ready");
  pill.hidden = false;
  pill.dataset.state = ready.ready ? "good" : "bad";
  setText(pill, ready.ready ? "Ready" : "Not ready");
  const why = (ready.checks ?? []).filter((c) => !c.ready).map((c) => `${c.name}: ${c.reason}`);
  const box = byId("why");
  box.hidden = why.length === 0;
  const shown = why.slice(0, 20);
  if (why.length > shown.length) shown.push(`and ${count(why.length - shown.length)} more`);
  const text = shown.join("\n");
  if (box.dataset.text === text) return;
  box.dataset.text = text;
  box.replaceChildren(h("p", {}, "Not ready:"), h("ul", {}, ...shown.map((line) => h("li", {}, line))));
}

function showSummary(status, sums) {
  setText(byId("who"), status.identifier ?? "");
  document.title = `${names.get(role) ?? "Process"} – Culvert`;
  const totals = status.totals ?? {};
  const [to, from] = direction.fields;
  const [what, active, opened] = direction.active;
  const list = [
    [what, count(totals[active]), `${count(totals[opened])} since the start`],
    [direction.words[0], rate(sums[0]), `${bytes(totals[to])} in all`],
    [direction.words[1], rate(sums[1]), `${bytes(totals[from])} in all`],
  ];
  if (role === "relay") list.push(["Connections", count(status.connections), `${count(status.registrations?.length ?? 0)} registered`]);
  else list.push(["Round trip", latency(ping(status)), "slowest channel"]);
  const summary = byId("summary");
  if (summary.children.length !== list.length) summary.replaceChildren(...list.map(() => h("div", {}, h("dt"), h("dd", { class: "big" }), h("dd", { class: "small" }))));
  for (const [i, texts] of list.entries()) {
    for (const [j, text] of texts.entries()) setText(summary.children[i].children[j], text);
  }
}

// loseIt says that there was no answer, and from when is what is shown.
function loseIt(why) {
  lost = true;
  document.body.classList.add("lost");
  byId("ready").hidden = true; // nobody knows
  setText(byId("live"), "No connection");
  const from = lastAnswer === null ? "" : ` What you see is from ${clock(lastAnswer)}.`;
  setText(byId("lost"), `No connection to the admin server: ${why}. Trying again each second.${from}`);
}

function found() {
  lost = false;
  document.body.classList.remove("lost");
  setText(byId("lost"), "");
  setText(byId("say"), "Connected again");
}

function pause() {
  const button = byId("pause");
  const yes = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(yes));
  setText(button, yes ? "Go on" : "Pause");
  document.body.classList.toggle("paused", yes);
  if (yes) setText(byId("live"), lastAnswer === null ? "Paused" : `Paused at ${clock(lastAnswer)}`);
  live.paused = yes;
}

byId("pause").addEventListener("click", pause);
for (const choice of document.querySelectorAll("input[name=span]")) {
  choice.addEventListener("change", () => {
    span = Number(choice.value) * 1000;
    for (const chart of charts) chart.point(null);
    live.now();
  });
}
keys(() => tables.map((t) => t.table));
live.start();
