// Which tables a process has, and what stands in them.

import { age, bytes, count, date, duration, latency, moment, none, party, rate, short } from "./format.js";
import { routeName } from "./route.js";
import { Table } from "./table.js";

// Columns that several tables have.
const column = {
  count: (title, get) => ({ title, number: true, value: get, text: (row) => count(get(row)) }),
  bytes: (title, get) => ({ title, number: true, value: get, text: (row) => bytes(get(row)) }),
  rate: (title, get) => ({ title, number: true, value: get, text: (row) => rate(get(row)) }),
  latency: (title, get) => ({ title, number: true, value: get, text: (row) => latency(get(row)) }),
  // An age is sorted as one: the youngest has the lowest.
  age: (title, get) => ({ title, number: true, value: (row) => age(get(row), row.now), text: (row) => duration(age(get(row), row.now)) }),
  text: (title, get, more = {}) => ({ title, value: get, text: (row) => get(row) || none, ...more }),
};

const yes = (value) => (value ? "yes" : "no");
const text = (value) => (value === undefined || value === null || value === "" ? none : String(value));

// rows gives rows what their cells are computed with, beside the data.
const rows = (list, now) => (list ?? []).map((row) => ({ ...row, now }));

// makeTables returns the tables for a role: [{table, update(status, now, rates)}]. limited
// is told how many streams or joins are wanted.
export function makeTables(role, limited) {
  if (role === "relay") return [joins(limited), relayRegistrations(), refusals()];
  if (role === "inlet") return [streams("Outlet", limited), inletChannels(), inletServices(), replicas()];
  return [streams(role === "authority" ? "Member" : "Inlet", limited), outletChannels(), outletServices(), registrations()];
}

function streams(peer, limited) {
  const table = new Table({
    id: "streams", title: "Streams", filter: true, limits: [100, 500, 2000], limited, sort: [7, "ascending"], key: (r) => r.id, empty: "No streams are open.",
    columns: [
      column.text("Service", (r) => r.service),
      column.text(peer, (r) => party(r.peer, r.peer_name), { wide: true }),
      column.text("Client", (r) => r.client, { wide: true }),
      column.bytes("To service", (r) => r.bytes_to_service),
      column.bytes("To client", (r) => r.bytes_to_client),
      column.rate("Rate", (r) => r.rate),
      column.age("Idle", (r) => r.active),
      column.age("Age", (r) => r.since),
    ],
    details: (r) => [
      ["Service", text(r.service)], [peer, text(r.peer)], ["Name", text(r.peer_name)], ["Client", text(r.client)], ["Channel", text(r.channel)], ["Stream", text(r.id)],
      ["Opened", date(r.since)], ["Last byte", date(r.active)], ["To service", bytes(r.bytes_to_service)], ["To client", bytes(r.bytes_to_client)],
    ],
  });
  return { table, update: (status, now, rates) => table.update(rows(status.streams, now).map((r) => ({ ...r, rate: total(rates.get(r.id)) })), status.streams_left_off) };
}

function joins(limited) {
  const table = new Table({
    id: "joins", title: "Joins", filter: true, limits: [100, 500, 2000], limited, sort: [6, "ascending"], key: joinKey, empty: "Nobody is joined.",
    columns: [
      column.text("Caller", (r) => short(r.caller)),
      column.text("Joined to", (r) => short(r.target), { wide: true }),
      column.text("Request", (r) => r.request),
      column.bytes("To target", (r) => r.bytes_to_target),
      column.bytes("To caller", (r) => r.bytes_to_caller),
      column.rate("Rate", (r) => r.rate),
      column.age("Age", (r) => r.since),
    ],
    details: (r) => [
      ["Request", text(r.request)], ["Caller", text(r.caller)], ["Caller's instance", text(r.caller_instance)], ["Joined to", text(r.target)], ["Its instance", text(r.target_instance)],
      ["Since", date(r.since)], ["To target", bytes(r.bytes_to_target)], ["To caller", bytes(r.bytes_to_caller)],
    ],
  });
  return { table, update: (status, now, rates) => table.update(rows(status.joins, now).map((r) => ({ ...r, rate: total(rates.get(joinKey(r))) })), status.joins_left_off) };
}

const joinKey = (r) => r.id ?? [r.caller_instance, r.target, r.since].join(" ");

const total = (pair) => (pair && pair[0] !== null && pair[1] !== null ? pair[0] + pair[1] : null);

// counters returns the counts that rates are made of: [key, [number, number]].
export function counters(status) {
  if (status.joins) return status.joins.map((r) => [joinKey(r), [r.bytes_to_target, r.bytes_to_caller]]);
  return (status.streams ?? []).map((r) => [r.id, [r.bytes_to_service, r.bytes_to_client]]);
}

// Columns of a channel's path, and its details.
const pathColumns = [
  column.count("Streams", (r) => r.streams),
  column.latency("Ping", (r) => r.path?.ping_seconds),
  column.count("Path changes", (r) => r.path?.changes),
  column.age("Keys' age", (r) => r.path?.keys_since),
  column.age("Age", (r) => r.since),
];

function pathDetails(r) {
  const p = r.path;
  if (!p) return [["Path", "none"], ["Error", text(r.last_error)]];
  return [
    ["Path", p.up ? "up" : "down"], ["Since", date(p.since)], ["Path changes", count(p.changes)], ["Attempts", count(p.attempts)], ["Keys of", date(p.keys_since)], ["Ping", latency(p.ping_seconds)],
    ["Shortest round trip under load", latency(p.rtt_seconds)], ["Rate of the path", rate(p.bytes_per_second)], ["Under way", bytes(p.under_way_bytes)], ["Held to be sent again", bytes(p.held_bytes)],
    ["Sent", bytes(r.bytes_sent)], ["Received", bytes(r.bytes_received)], ["Error", text(p.error || r.last_error)],
  ];
}

const channelStates = new Map([["open", "good"], ["resuming", "warn"], ["connecting", "bad"]]);

function inletChannels() {
  const key = (r) => [r.outlet, r.instance ?? "", r.service ?? ""].join(" ");
  const table = new Table({
    id: "channels", title: "Channels", sort: [0, "ascending"], key, empty: "There are no channels.",
    columns: [
      column.text("Outlet", (r) => short(r.outlet)),
      column.text("State", (r) => r.state, { state: (r) => channelStates.get(r.state) ?? "" }),
      column.text("Route", (r) => routeName(r.route), { wide: true }),
      ...pathColumns,
    ],
    details: (r) => [["Outlet", text(r.outlet)], ["Instance", text(r.instance)], ["Service", text(r.service)], ["Channel", text(r.channel)], ["State", text(r.state)], ["Route", text(r.route)], ["Opened", date(r.since)], ...pathDetails(r)],
  });
  return { table, update: (status, now) => table.update(rows(status.channels, now)) };
}

function outletChannels() {
  const table = new Table({
    id: "channels", title: "Channels", sort: [0, "ascending"], key: (r) => `${r.peer} ${r.channel}`, empty: "Nobody has a channel here.",
    columns: [
      column.text("Peer", (r) => party(r.peer, r.name)),
      column.text("Path", (r) => (r.path?.up ? "up" : "down"), { state: (r) => (r.path?.up ? "good" : "warn") }),
      column.text("Through", (r) => routeName(r.route) || "no relay", { wide: true }),
      ...pathColumns,
    ],
    details: (r) => [["Peer", text(r.peer)], ["Name", text(r.name)], ["Instance", text(r.instance)], ["Channel", text(r.channel)], ["Through", text(r.route || "no relay")], ["Opened", date(r.since)], ...pathDetails(r)],
  });
  return { table, update: (status, now) => table.update(rows(status.channels, now)) };
}

const serviceColumns = [
  column.count("Streams", (r) => r.streams),
  column.count("Opened", (r) => r.streams_opened),
  column.bytes("To service", (r) => r.bytes_to_service),
  column.bytes("To client", (r) => r.bytes_to_client),
];

function inletServices() {
  const outlet = (r) => (r.replicas ? `any of ${count(r.replicas.known)}` : short(r.outlet));
  const table = new Table({
    id: "services", title: "Services", key: (r) => `${r.service} ${r.listen}`, empty: "There are no services.",
    columns: [column.text("Service", (r) => r.service), column.text("Listens at", (r) => r.listen, { wide: true }), column.text("Outlet", outlet), ...serviceColumns],
    details: (r) => [["Service", text(r.service)], ["Listens at", text(r.listen)], ["Outlet", text(r.outlet || "any that proves to offer it")], ["Streams", count(r.streams)], ["Opened", count(r.streams_opened)], ["To service", bytes(r.bytes_to_service)], ["To client", bytes(r.bytes_to_client)]],
  });
  return { table, update: (status, now) => table.update(rows(status.services, now)) };
}

function outletServices() {
  const allowed = (r) => r.expression || (r.allow ?? []).join(", ");
  const table = new Table({
    id: "services", title: "Services", key: (r) => r.service, empty: "No services are offered.",
    columns: [column.text("Service", (r) => r.service), column.text("Target", (r) => r.target, { wide: true }), ...serviceColumns],
    details: (r) => [["Service", text(r.service)], ["Target", text(r.target)], ["Allowed", text(allowed(r))], ["Streams", count(r.streams)], ["Opened", count(r.streams_opened)], ["To service", bytes(r.bytes_to_service)], ["To client", bytes(r.bytes_to_client)]],
  });
  return { table, update: (status, now) => table.update(rows(status.services, now)) };
}

const replicaStates = new Map([["in_use", "good"], ["connecting", "warn"], ["finishing", "warn"], ["aside", "bad"]]);

// replicas is hidden where no service is had by its name.
function replicas() {
  const table = new Table({
    id: "replicas", title: "Replicas", key: (r) => `${r.service} ${r.outlet} ${r.instance}`, empty: "No relay lists one.",
    columns: [
      column.text("Service", (r) => r.service),
      column.text("Outlet", (r) => short(r.outlet)),
      column.text("State", (r) => r.state.replace("_", " "), { state: (r) => replicaStates.get(r.state) ?? "" }),
      column.text("Route", (r) => routeName(r.route), { wide: true }),
      column.count("Streams", (r) => r.streams),
      column.text("Last error", (r) => r.last_error, { wide: true }),
    ],
    details: (r) => [["Service", text(r.service)], ["Outlet", text(r.outlet)], ["Instance", text(r.instance)], ["State", text(r.state)], ["Draining", yes(r.draining)], ["Path", r.path ? "up" : "none"], ["Route", text(r.route)], ["Streams", count(r.streams)], ["Last error", text(r.last_error)]],
  });
  const update = (status, now) => {
    const byName = (status.services ?? []).filter((s) => s.replicas);
    table.element.hidden = byName.length === 0;
    table.update(rows(byName.flatMap((s) => (s.replicas.list ?? []).map((r) => ({ ...r, service: s.service }))), now));
  };
  return { table, update };
}

const registrationState = (r) => (!r.registered ? "not registered" : r.draining ? "draining" : "registered");
const registrationMark = (r) => (!r.registered ? "bad" : r.draining ? "warn" : "good");

// registrations is hidden for who registers nowhere.
function registrations() {
  const table = new Table({
    id: "registrations", title: "Registrations", key: (r) => `${r.route} ${r.address}`, empty: "There are none.",
    columns: [
      column.text("Relay", (r) => r.address || routeName(r.route)),
      column.text("State", registrationState, { state: registrationMark }),
      column.count("Spare", (r) => r.spares),
      column.age("Since", (r) => r.since),
      column.text("Last error", (r) => r.last_error, { wide: true }),
    ],
    details: (r) => [["Route", text(r.route)], ["Address", text(r.address)], ["State", registrationState(r)], ["Since", date(r.since)], ["Spare connections", count(r.spares)], ["Last error", text(r.last_error)]],
  });
  const update = (status, now) => {
    table.element.hidden = !status.registrations?.length;
    table.update(rows(status.registrations, now));
  };
  return { table, update };
}

function relayRegistrations() {
  const table = new Table({
    id: "registrations", title: "Registrations", filter: true, key: (r) => `${r.identifier} ${r.instance}`, empty: "No outlet is registered.",
    columns: [
      column.text("Outlet", (r) => short(r.identifier)),
      column.text("Instance", (r) => short(r.instance)),
      column.text("From", (r) => r.remote, { wide: true }),
      column.text("State", (r) => (r.draining ? "draining" : "registered"), { state: (r) => (r.draining ? "warn" : "good") }),
      column.count("Spare", (r) => r.spares),
      column.count("Waiting", (r) => r.waiting),
      column.age("Age", (r) => r.since),
    ],
    details: (r) => [["Outlet", text(r.identifier)], ["Instance", text(r.instance)], ["From", text(r.remote)], ["Since", date(r.since)], ["Spare connections", count(r.spares)], ["Callers waiting", count(r.waiting)], ["Draining", yes(r.draining)]],
  });
  return { table, update: (status, now) => table.update(rows(status.registrations, now)) };
}

function refusals() {
  const table = new Table({
    id: "refusals", title: "Refusals", sort: [1, "descending"], key: (r) => r.code, empty: "Nobody was refused since the start.",
    columns: [column.text("Code", (r) => r.code), column.count("Since the start", (r) => r.n)],
    details: (r) => [["Code", text(r.code)], ["Since the start", count(r.n)]],
  });
  return { table, update: (status, now) => table.update(rows(Object.entries(status.refusals ?? {}).map(([code, n]) => ({ code, n })), now)) };
}

// facts is what stands under "Process".
export function facts(status, now) {
  const c = status.credential;
  const list = [["Identifier", text(status.identifier)], ["Instance", text(status.instance)], ["Version", text(status.version)], ["Started", Number.isNaN(moment(status.started)) ? none : `${date(status.started)}, ${duration(age(status.started, now))} ago`]];
  if (status.listen?.length) list.push(["Listens at", status.listen.join(", ")]);
  if (!c) return list;
  const attributes = Object.entries(c.attributes ?? {}).map(([name, value]) => `${name}=${value}`);
  list.push(
    ["Authority", `${text(c.authority)}, ${c.connected ? "connected" : "not connected"}`], ["Attributes", text(attributes.join(", "))],
    ["Credential until", c.expires ? date(c.expires) : "none yet"], ["Renewal", c.renewal ? date(c.renewal) : none], ["Revocation list", `number ${count(c.revocation_list ?? 0)}, ${count(c.revocations)} entries`],
  );
  if (c.revoked) list.push(["Revoked", c.revoked]);
  if (c.last_error) list.push(["Last error", c.last_error]);
  return list;
}
