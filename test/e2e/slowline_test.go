//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/line"
	"github.com/culvert-net/culvert/internal/testenv"
)

// What a stream to the target of TestSlowLine is for: its first byte.
const (
	toEcho   = 'e'
	toSink   = 's'
	toSource = 'b'
)

// lineTarget serves streams of those kinds and counts what the sinks get.
func lineTarget(t *testing.T) (addr string, sunk *atomic.Int64) {
	sunk = new(atomic.Int64)
	return serveTCP(t, func(c *net.TCPConn) {
		var kind [1]byte
		if _, err := io.ReadFull(c, kind[:]); err != nil {
			return
		}
		switch kind[0] {
		case toEcho:
			echo(c)
		case toSink:
			_, _ = io.Copy(tally{sunk}, struct{ io.Reader }{c})
		case toSource:
			_, _ = io.Copy(c, struct{ io.Reader }{endless{}})
		}
	}), sunk
}

type tally struct{ n *atomic.Int64 }

func (t tally) Write(p []byte) (int, error) {
	t.n.Add(int64(len(p)))
	return len(p), nil
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// through serves a line to an address.
func through(t *testing.T, cfg line.Config, to string) (addr string) {
	l, ln := line.New(cfg), listenTCP(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = l.Serve(context.Background(), ln, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		})
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

// TestSlowLine has a line of 200 Mbit/s whose buffer holds twice what is under
// way on it, between inlet and outlet or on one side of a relay. One stream has
// nearly all of it, and a small one beside it hardly waits.
func TestSlowLine(t *testing.T) {
	const rate = 200e6
	for _, rtt := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		cfg := line.Config{Rate: rate, Delay: rtt / 2, Buffer: int(2 * rate / 8 * rtt.Seconds())}
		for _, where := range howLong([]string{"direct", "relay-outlet"}, []string{"direct", "inlet-relay", "relay-outlet"}) {
			t.Run(fmt.Sprintf("%s/%s", rtt, where), func(t *testing.T) {
				target, sunk := lineTarget(t)
				addr := slowPair(t, cfg, where, target)
				for _, kind := range []byte{toSink, toSource} {
					t.Run(map[byte]string{toSink: "up", toSource: "down"}[kind], func(t *testing.T) {
						var got float64
						var trip time.Duration
						for range 6 { // a machine that is busy with other things is no line
							got, trip = besideBulk(t, addr, kind, sunk)
							t.Logf("bulk has %.3f of the line, a small stream takes %.2f round trips", got*8/rate, trip.Seconds()/rtt.Seconds())
							if got*8 >= 0.9*rate && trip <= 2*rtt {
								return
							}
						}
						if got*8 < 0.9*rate {
							t.Errorf("bulk has %.1f Mbit/s, want 90 %% of %.0f", got*8/1e6, rate/1e6)
						}
						if trip > 2*rtt {
							t.Errorf("99 of 100 small requests take up to %s, want twice %s", trip, rtt)
						}
					})
				}
			})
		}
	}
}

// slowPair returns the address of an inlet that reaches target over the line.
func slowPair(t *testing.T, cfg line.Config, where, target string) (addr string) {
	w := newWorld(t)
	if where == "direct" {
		w.outlet("outlet-a", outletConfig{Listen: true, Services: []service{{"load", target, []string{"inlet-a"}}}})
		w.inlet("inlet-a", inletConfig{Services: []local{{"load", "outlet-a", []string{w.hopAt(through(t, cfg, w.addr("outlet-a")), "outlet-a")}}}})
		return w.at("inlet-a", "load")
	}
	pairRelays(w, 1, "a")
	return w.pairOver("a", 1, target, func(l leg, relay string) string {
		if string(l) != where {
			return relay
		}
		return through(t, cfg, relay)
	}).addr
}

// besideBulk runs a stream of bulk and, beside it, one of small requests, and
// returns the bytes per second of the one and of how the other's longest take,
// but for one in a hundred. Time for which this process, and with it the line, has
// stood still does not count for those.
func besideBulk(t *testing.T, addr string, kind byte, sunk *atomic.Int64) (rate float64, trip time.Duration) {
	bulk, small := dialFor(t, addr, kind), dialFor(t, addr, toEcho)
	n := sunk
	var running sync.WaitGroup
	if kind == toSink {
		running.Go(func() { _, _ = io.Copy(bulk, struct{ io.Reader }{endless{}}) })
	} else {
		n = new(atomic.Int64)
		running.Go(func() { _, _ = io.Copy(tally{n}, struct{ io.Reader }{bulk}) })
	}
	time.Sleep(howLong(2*time.Second, 5*time.Second)) // until the line is full
	var trips []time.Duration
	b := make([]byte, 64)
	watch, begin, before := testenv.Start(t), time.Now(), n.Load()
	for time.Since(begin) < howLong(3*time.Second, 20*time.Second) {
		start, lost := time.Now(), watch.Lost()
		_, _ = small.Write(b)
		if _, err := io.ReadFull(small, b); err != nil {
			t.Fatal(err)
		}
		trips = append(trips, max(0, time.Since(start)-(watch.Lost()-lost)))
	}
	rate = float64(n.Load()-before) / time.Since(begin).Seconds()
	bulk.Close()
	small.Close()
	running.Wait()
	slices.Sort(trips)
	return rate, trips[len(trips)*99/100]
}

// dialFor opens a stream of that kind.
func dialFor(t *testing.T, addr string, kind byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte{kind}); err != nil {
		t.Fatal(err)
	}
	return c
}
