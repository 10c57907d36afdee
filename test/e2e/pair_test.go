//go:build e2e && linux

package e2e

import (
	"net/http"
	"strconv"
	"strings"
)

// A pair is an inlet and an outlet with a route over each of some relays, and
// something on every leg.
type pair struct {
	inlet, outlet *node
	addr          string  // of the inlet's service
	in, out       []*wire // of a wired pair, by relay: from the inlet, and from the outlet
}

// A leg names the wires of a pair on one side of its relays.
type leg string

const (
	inletLeg  leg = "inlet-relay"
	outletLeg leg = "relay-outlet"
)

// wire returns the wire of that leg at the first relay, which is in use as long
// as it works, and the directions there of what goes to the outlet and back.
func (p *pair) wire(l leg) (w *wire, toOutlet, toInlet int) {
	if l == inletLeg {
		return p.in[0], up, down
	}
	return p.out[0], down, up // outlets connect to relays
}

// pairRelays starts n relays for pairs of those names.
func pairRelays(w *world, n int, pairs ...string) {
	w.t.Helper()
	var c relayConfig
	for _, name := range pairs {
		c.Register, c.Connect = append(c.Register, "outlet-"+name), append(c.Connect, "inlet-"+name)
	}
	for i := range n {
		w.relay(relayName(i), c)
	}
}

// wiredPair starts an outlet and an inlet on the first n relays, with a wire on
// every leg.
func (w *world) wiredPair(name string, n int, target string) *pair {
	w.t.Helper()
	var in, out []*wire
	p := w.pairOver(name, n, target, func(l leg, relay string) string {
		wire := w.wire(relay)
		if l == inletLeg {
			in = append(in, wire)
		} else {
			out = append(out, wire)
		}
		return wire.addr
	})
	p.in, p.out = in, out
	return p
}

// pairOver starts an outlet and an inlet on the first n relays, which each
// reaches at the address that way returns for a relay's own.
func (w *world) pairOver(name string, n int, target string, way func(l leg, relay string) string) *pair {
	w.t.Helper()
	var toRelays, routes []string
	for i := range n {
		relay := w.addr(relayName(i))
		toRelays = append(toRelays, w.hopAt(way(outletLeg, relay), relayName(i)))
		routes = append(routes, w.hopAt(way(inletLeg, relay), relayName(i)))
	}
	const extra = "keepalive: 1s\n"
	p := &pair{addr: w.at("inlet-"+name, "load")}
	p.outlet = w.outlet("outlet-"+name, outletConfig{Relays: toRelays, Services: []service{{"load", target, []string{"inlet-" + name}}}, Extra: extra})
	p.inlet = w.inlet("inlet-"+name, inletConfig{Services: []local{{"load", "outlet-" + name, routes}}, Extra: extra})
	return p
}

// metric returns the sum of a counter or gauge over all its labels.
func (n *node) metric(name string) (sum float64) {
	n.w.t.Helper()
	a := n.get("/metrics")
	if a.code != http.StatusOK {
		n.w.t.Fatalf("%s: /metrics: %d %s", n.name, a.code, a.body)
	}
	return sumOf(a.body, name)
}

// sumOf adds up the samples of one metric in Prometheus's text form.
func sumOf(text, name string) (sum float64) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		if v, err := strconv.ParseFloat(fields[len(fields)-1], 64); err == nil {
			sum += v
		}
	}
	return sum
}
