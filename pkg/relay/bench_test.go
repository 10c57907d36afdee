package relay

import (
	"context"
	"testing"

	"github.com/culvert-net/culvert/pkg/route"
)

// BenchmarkConnect makes a path to a parked outlet through one relay and has a
// byte go there and back. It includes the spare conn that takes the place of the
// one used.
func BenchmarkConnect(b *testing.B) {
	relay := startRelay(b, func(c *Config) { c.Trace = nil })
	outlet, d := newLocal(b), &Dialer{Local: newLocal(b)}
	r := route.Route{relay.hop(b)}
	startAgent(b, outlet, r, func(c *AgentConfig) { c.Trace = nil })
	eventually(b, "conns are parked", func() bool {
		rs := relay.Status().Registrations
		return len(rs) == 1 && rs[0].Spares == SpareConns
	})
	b.ReportAllocs()
	for b.Loop() {
		nc, err := d.Path(context.Background(), r, outlet.Identifier(), nil, 0)
		if err != nil {
			b.Fatal(err)
		}
		carries(b, nc, "x")
		_ = nc.Close()
	}
}

// The numbers are asked for by whoever may read the metrics: they cost little
// however many joins there are.
func BenchmarkCounts(b *testing.B) {
	s, err := NewServer(Config{Local: newLocal(b)})
	if err != nil {
		b.Fatal(err)
	}
	for range 8192 {
		s.joins[&join{}] = struct{}{}
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Counts()
	}
}
