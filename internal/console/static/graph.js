// What the pictures of routes show, as values: columns of nodes, and edges between
// them. How they are drawn stands in picture.js.
//
// A node is {id, kind, title, sub, state, label, detail}; detail is all that is known
// of it, as text. An edge is {from, to, state}. States are those of the lines:
// used, spare, failed, moving (an end is near), idle.

import { count, party, plural, short } from "./format.js";
import { parseRoute, routeName } from "./route.js";

// How the states of routes and replicas are drawn, and named.
const routeStates = new Map([["in_use", ["used", "in use"]], ["failed", ["failed", "failed"]], ["spare", ["spare", "spare"]]]);
const replicaStates = new Map([["in_use", ["used", "in use"]], ["connecting", ["failed", "connecting"]], ["finishing", ["moving", "finishing"]], ["aside", ["failed", "left aside"]]]);
const channelStates = new Map([["open", "used"], ["resuming", "moving"]]);

// A Graph is built from left to right.
class Graph {
  columns = [];
  edges = [];

  constructor(title) {
    this.title = title;
  }

  add(column, node) {
    while (this.columns.length <= column) this.columns.push([]);
    this.columns[column].push(node);
    return node.id;
  }

  join(from, to, state) {
    const edge = this.edges.find((e) => e.from === from && e.to === to);
    if (!edge) this.edges.push({ from, to, state });
    else if (rank(state) > rank(edge.state)) edge.state = state;
  }

  // lane adds a row of nodes and joins them. It ends at the column before end, by
  // points without a node where it is shorter.
  lane(id, column, end, nodes, state) {
    const ids = [];
    for (let i = column; i < end; i++) {
      const node = nodes[i - column] ?? { kind: "point" };
      ids.push(this.add(i, { ...node, id: `${id}/${i}` }));
    }
    for (let i = 1; i < ids.length; i++) this.join(ids[i - 1], ids[i], state);
    return { first: ids[0], last: ids.at(-1) };
  }
}

const rank = (state) => ["idle", "failed", "spare", "moving", "used"].indexOf(state);

// most nodes stand in a column beside the one that says how many more there are.
const most = 6;

function some(list, more) {
  if (list.length <= most) return list;
  return [...list.slice(0, most - 1), more(list.length - most + 1)];
}

// graphs returns the pictures of a process, at most four, and how many there are.
export function graphs(status) {
  const all = status.role === "inlet" ? inletGraphs(status) : status.role === "relay" ? relayGraphs(status) : outletGraphs(status);
  return { list: all.slice(0, 4), left: Math.max(0, all.length - 4) };
}

function inletGraphs(status) {
  const services = status.services ?? [];
  const channels = status.channels ?? [];
  return [
    ...services.filter((s) => s.replicas).map((s) => byNameGraph(s)),
    ...channels.filter((c) => !c.service).map((c) => outletGraph(c, services.filter((s) => !s.replicas && s.outlet === c.outlet))),
  ];
}

// ends adds what an inlet's picture has at both ends: applications and services. Of
// outlets, [id, state], only those that are in use carry streams.
function ends(g, services, inlet, outlets, last) {
  for (const [i, s] of some(services, (n) => ({ more: n })).entries()) {
    if (s.more) {
      g.join(g.add(0, moreNode("apps", s.more)), inlet, "idle");
      const more = g.add(last, moreNode("services", s.more));
      for (const [outlet] of outlets) g.join(outlet, more, "idle");
      continue;
    }
    const state = s.streams > 0 ? "used" : "idle";
    const streams = plural(s.streams ?? 0, "stream");
    g.join(
      g.add(0, { id: `app/${i}`, kind: "end", title: "Application", sub: s.listen, label: streams, state, detail: `Applications connect to ${s.listen}; ${streams} of ${s.service} now.` }),
      inlet,
      state,
    );
    const service = g.add(last, { id: `service/${i}`, kind: "end", title: s.service, sub: "service", label: streams, state, detail: `Service ${s.service}, ${streams} of this inlet now.` });
    for (const [outlet, use] of outlets) g.join(outlet, service, use === "used" ? state : "idle");
  }
}

const moreNode = (id, n) => ({ id: `${id}/more`, kind: "end", title: `${count(n)} more`, sub: "", label: "", state: "idle", detail: `${count(n)} more, in the table below.` });

// relayLanes returns the nodes of each route, without the outlet at its end.
function relayLanes(routes, outlet) {
  return routes.map((r) => {
    const [state, label] = routeStates.get(r.state) ?? ["idle", r.state];
    const why = r.error ? ` Last error: ${r.error}` : "";
    const hops = parseRoute(r.route);
    const relays = hops.filter((hop) => hop.id !== outlet);
    const detail = `Route ${routeName(r.route)}: ${label}.${why}`;
    const nodes = relays.map((hop) => ({ kind: "relay", title: hop.address, sub: `relay ${short(hop.id)}`, state, label, detail }));
    if (nodes.length === 0) nodes.push({ kind: "relay", title: hops[0]?.address ?? "direct", sub: "no relay", state, label, detail });
    return { state, nodes };
  });
}

const depth = (lanes) => Math.max(1, ...lanes.map((l) => l.nodes.length));

// outletGraph is an inlet's way to one outlet.
function outletGraph(c, services) {
  const g = new Graph(`Outlet ${short(c.outlet)}`);
  const lanes = relayLanes(c.routes ?? [], c.outlet);
  const outletColumn = 2 + depth(lanes);
  const inlet = g.add(1, { id: "inlet", kind: "self", title: "Inlet", sub: "this process", label: "", state: "used", detail: "This process." });
  const state = channelStates.get(c.state) ?? "failed";
  const outlet = { id: "outlet", kind: "end", title: "Outlet", sub: short(c.outlet), label: c.state, state, detail: `Outlet ${short(c.outlet)}: ${c.state}.${c.last_error ? ` Last error: ${c.last_error}` : ""}` };
  for (const [i, l] of lanes.entries()) {
    const ids = g.lane(`route/${i}`, 2, outletColumn, l.nodes, l.state);
    g.join(inlet, ids.first, l.state);
    g.join(ids.last, "outlet", l.state);
  }
  g.add(outletColumn, outlet);
  ends(g, services, inlet, [["outlet", state]], outletColumn + 1);
  return g;
}

// byNameGraph is an inlet's way to all outlets that offer a service.
function byNameGraph(service) {
  const g = new Graph(`Service ${service.service}, by name`);
  const routes = service.replicas.routes ?? [];
  const replicas = service.replicas.list ?? [];
  const lanes = relayLanes(routes, "");
  const outletColumn = 2 + depth(lanes);
  const inlet = g.add(1, { id: "inlet", kind: "self", title: "Inlet", sub: "this process", label: "", state: "used", detail: "This process." });
  const last = lanes.map((l, i) => {
    const ids = g.lane(`route/${i}`, 2, outletColumn, l.nodes, l.state);
    g.join(inlet, ids.first, l.state);
    return ids.last;
  });
  const outlets = some(replicas, (n) => ({ more: n })).map((r, i) => {
    if (r.more) return [g.add(outletColumn, moreNode("replicas", r.more)), "idle"];
    const [state, label] = replicaStates.get(r.state) ?? ["idle", r.state];
    const id = g.add(outletColumn, {
      id: `replica/${i}`, kind: "end", title: "Outlet", sub: short(r.outlet), state, label,
      detail: `Outlet ${short(r.outlet)}, instance ${short(r.instance)}: ${label}, ${plural(r.streams ?? 0, "stream")}.${r.last_error ? ` Last error: ${r.last_error}` : ""}`,
    });
    const by = routes.findIndex((route) => route.route === r.route);
    if (by >= 0) g.join(last[by], id, "used");
    else for (const from of last) g.join(from, id, "idle");
    return [id, state];
  });
  if (outlets.length === 0) {
    outlets.push([g.add(outletColumn, { id: "nobody", kind: "end", title: "No outlet", sub: "offers it", label: "", state: "failed", detail: service.replicas.last_error || "No relay lists an outlet that offers this service." }), "failed"]);
    for (const [i, from] of last.entries()) g.join(from, "nobody", lanes[i].state === "failed" ? "failed" : "idle");
  }
  ends(g, [service], inlet, outlets, outletColumn + 1);
  return g;
}

// outletGraphs is an outlet's, or an authority's, whose members come as inlets do.
function outletGraphs(status) {
  const authority = status.role === "authority";
  const g = new Graph("");
  const lanes = outletLanes(status);
  const selfColumn = 1 + depth(lanes);
  const ids = lanes.map((l, i) => {
    const lane = g.lane(`lane/${i}`, 1, selfColumn, l.nodes, l.state);
    g.join(lane.last, "self", l.state);
    return lane;
  });
  g.add(selfColumn, { id: "self", kind: "self", title: authority ? "Authority" : "Outlet", sub: "this process", label: "", state: "used", detail: "This process." });
  for (const [i, peer] of some(byPeer(status.channels ?? []), (n) => ({ more: n })).entries()) {
    if (peer.more) {
      g.add(0, moreNode("peers", peer.more));
      continue;
    }
    const up = peer.channels.some((c) => c.path?.up);
    const streams = plural(peer.streams, "stream");
    const id = g.add(0, {
      id: `peer/${i}`, kind: "end", title: peer.name || (authority ? "Member" : "Inlet"), sub: short(peer.id), label: streams, state: up ? "used" : "moving",
      detail: `${party(peer.id, peer.name)}: ${plural(peer.channels.length, "channel")}, ${streams}${up ? "" : "; no path now"}.`,
    });
    for (const c of peer.channels) {
      const by = lanes.findIndex((l) => l.via === (c.route ?? ""));
      if (by >= 0) g.join(id, ids[by].first, c.path?.up ? "used" : "moving");
    }
  }
  if (g.columns[0].length === 0) g.add(0, { id: "nobody", kind: "end", title: authority ? "No member" : "No inlet", sub: "is connected", label: "", state: "idle", detail: "Nobody has a channel here." });
  for (const [i, s] of some(status.services ?? [], (n) => ({ more: n })).entries()) {
    const streams = plural(s.streams ?? 0, "stream");
    const node = s.more
      ? moreNode("services", s.more)
      : { id: `service/${i}`, kind: "end", title: s.service, sub: s.target || "this process", label: streams, state: s.streams > 0 ? "used" : "idle", detail: `Service ${s.service} at ${s.target || "this process"}, ${streams} now.` };
    g.join("self", g.add(selfColumn + 1, node), node.state);
  }
  return [g];
}

// outletLanes are the relays that an outlet registers at, and its own listeners. The
// relay that inlets come to stands first.
function outletLanes(status) {
  const carries = (via) => (status.channels ?? []).some((c) => (c.route ?? "") === via && c.path?.up);
  const lanes = (status.registrations ?? []).map((r) => {
    const via = `${r.route} at ${r.address}`; // as channels have it
    const [state, label] = registrationState(r, carries(via));
    const hops = parseRoute(r.route).reverse();
    if (hops[0] && r.address) hops[0].address = r.address;
    const detail = `Registration at ${r.address || routeName(r.route)}: ${label}, ${plural(r.spares ?? 0, "spare connection")}.${r.last_error ? ` Last error: ${r.last_error}` : ""}`;
    return { via, state, nodes: hops.map((hop) => ({ kind: "relay", title: hop.address, sub: `relay ${short(hop.id)}`, state, label, detail })) };
  });
  const listen = status.listen ?? [];
  if (listen.length > 0) {
    const state = carries("") ? "used" : "spare";
    lanes.push({ via: "", state, nodes: [{ kind: "relay", title: listen[0], sub: "no relay", state, label: state === "used" ? "in use" : "listening", detail: `Listens at ${listen.join(", ")}.` }] });
  }
  return lanes;
}

function registrationState(r, carries) {
  if (!r.registered) return ["failed", "not registered"];
  if (r.draining) return ["moving", "draining"];
  return carries ? ["used", "in use"] : ["spare", "registered"];
}

// byPeer joins the channels of one peer.
function byPeer(channels) {
  const peers = new Map();
  for (const c of channels) {
    const peer = peers.get(c.peer) ?? { id: c.peer, name: c.name, channels: [], streams: 0 };
    peer.channels.push(c);
    peer.streams += c.streams ?? 0;
    peers.set(c.peer, peer);
  }
  return [...peers.values()];
}

// relayGraphs is a relay's: callers, this process, and whom they are joined to.
function relayGraphs(status) {
  const g = new Graph("");
  const callers = tally(status.joins ?? [], (j) => j.caller);
  const targets = tally(status.joins ?? [], (j) => j.target);
  for (const r of status.registrations ?? []) {
    const t = targets.get(r.identifier) ?? { joins: 0 };
    t.registration = r;
    targets.set(r.identifier, t);
  }
  g.add(1, { id: "self", kind: "self", title: "Relay", sub: "this process", label: status.draining ? "draining" : "", state: status.draining ? "moving" : "used", detail: "This process." });
  const add = (column, list, prefix, node) => {
    for (const [i, entry] of some([...list], (n) => [null, n]).entries()) {
      const shown = entry[0] === null ? moreNode(prefix, entry[1]) : { id: `${prefix}/${i}`, kind: "end", ...node(entry[0], entry[1]) };
      g.add(column, shown);
      if (column === 0) g.join(shown.id, "self", shown.state);
      else g.join("self", shown.id, shown.state);
    }
  };
  add(0, callers, "caller", (id, c) => {
    const joins = plural(c.joins, "join");
    return { title: "Caller", sub: short(id), label: joins, state: "used", detail: `${id} has ${joins}.` };
  });
  add(2, targets, "target", (id, t) => {
    const joins = plural(t.joins, "join");
    const r = t.registration;
    const state = r?.draining ? "moving" : t.joins > 0 ? "used" : "spare";
    const what = r ? (r.draining ? "draining" : "registered") : "next relay";
    return { title: r ? "Outlet" : id, sub: r ? short(id) : what, label: t.joins > 0 ? joins : what, state, detail: `${id}: ${what}, ${joins}.` };
  });
  for (const [column, id, title] of [[0, "nobody", "Nobody"], [2, "nowhere", "No outlet"]]) {
    if (!g.columns[column]?.length) g.add(column, { id, kind: "end", title, sub: column ? "is registered" : "is joined", label: "", state: "idle", detail: "" });
  }
  return [g];
}

function tally(joins, key) {
  const all = new Map();
  for (const j of joins) {
    const entry = all.get(key(j)) ?? { joins: 0 };
    entry.joins++;
    all.set(key(j), entry);
  }
  return all;
}
