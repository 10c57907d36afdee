//go:build e2e && linux

package e2e

import (
	"sync"
	"testing"
	"time"
)

// A vandal does something again and again until it is stopped, and counts.
type vandal struct {
	once    sync.Once
	stop    chan struct{}
	running sync.WaitGroup
	n       int
}

// every does f each period, for the first time after one, until end or the end
// of the test.
func every(t *testing.T, period time.Duration, f func()) *vandal {
	v := &vandal{stop: make(chan struct{})}
	t.Cleanup(func() { v.end() })
	v.running.Go(func() {
		t := time.NewTicker(period)
		defer t.Stop()
		for {
			select {
			case <-v.stop:
				return
			case <-t.C:
				f()
				v.n++
			}
		}
	})
	return v
}

// killEvery kills a program with SIGKILL and starts it again, each period.
func killEvery(n *node, period time.Duration) *vandal {
	return every(n.w.t, period, func() {
		n.kill()
		n.restart()
	})
}

// end stops it and returns how often it has done it.
func (v *vandal) end() int {
	v.once.Do(func() { close(v.stop) })
	v.running.Wait()
	return v.n
}

// manyRoutes starts n relays, an outlet registered at all of them and an inlet with
// a route over each.
func manyRoutes(t *testing.T, n int, target string) (*world, []*node) {
	t.Helper()
	w := newWorld(t)
	var nodes []*node
	var hops []string
	for i := range n {
		nodes = append(nodes, w.relay(relayName(i), relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}))
		hops = append(hops, w.hop(relayName(i)))
	}
	w.outlet("outlet", outletConfig{Relays: hops, Services: []service{{"load", target, []string{"inlet"}}}, Extra: "keepalive: 1s\n"})
	w.inlet("inlet", inletConfig{Services: []local{{"load", "outlet", hops}}, Extra: "keepalive: 1s\n"})
	return w, nodes
}

// TestSurviveKilledRelay kills the only relay with SIGKILL and starts it again,
// every second.
func TestSurviveKilledRelay(t *testing.T) {
	t.Parallel()
	w, relays := manyRoutes(t, 1, loadTarget(t))
	over := howLong(6*time.Second, time.Minute)
	l := startLoad(t, w.at("inlet", "load"), 16, howLong[int64](4<<20, 64<<20), over)
	l.tick()
	v := killEvery(relays[0], time.Second)
	l.wait(v.end)
}

// TestSurviveTwoRelays kills two relays in turn.
func TestSurviveTwoRelays(t *testing.T) {
	t.Parallel()
	w, relays := manyRoutes(t, 2, loadTarget(t))
	over := howLong(6*time.Second, time.Minute)
	l := startLoad(t, w.at("inlet", "load"), 16, howLong[int64](4<<20, 64<<20), over)
	l.tick()
	i := 0
	v := every(t, time.Second, func() {
		relays[i%2].kill()
		relays[i%2].restart()
		i++
	})
	l.wait(v.end)
}
