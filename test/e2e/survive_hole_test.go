//go:build e2e && linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// holeInterval is the keepalive interval; a hole may take two to be noticed.
const holeInterval = time.Second

// A holeCase is a hole in one direction of a leg or in both, with another route
// or without.
type holeCase struct {
	leg    leg
	lost   string // what the hole swallows
	routes int
}

func (c holeCase) name() string { return fmt.Sprintf("%s-%s-%d", c.leg, c.lost, c.routes) }

// dig makes the hole.
func (c holeCase) dig(p *pair) *wire {
	w, toOutlet, toInlet := p.wire(c.leg)
	switch c.lost {
	case "to-outlet":
		w.hole(toOutlet)
	case "to-inlet":
		w.hole(toInlet)
	default:
		w.hole(toOutlet, toInlet)
	}
	return w
}

// TestSurviveBlackHole loses everything on one leg, without a word to anybody,
// for 10 s (8 s in the short form): to the outlet, to the inlet, and both ways. It is noticed on both
// sides within two keepalive intervals, and with another route that is how long
// streams pause. In the short form all cases run at once.
func TestSurviveBlackHole(t *testing.T) {
	t.Parallel()
	var cases []holeCase
	for _, routes := range []int{1, 2} {
		for _, l := range []leg{inletLeg, outletLeg} {
			for _, lost := range []string{"to-outlet", "to-inlet", "both-ways"} {
				cases = append(cases, holeCase{l, lost, routes})
			}
		}
	}
	for some := range slices.Chunk(cases, howLong(len(cases), 1)) {
		name := "all"
		if len(some) == 1 {
			name = some[0].name()
		}
		t.Run(name, func(t *testing.T) { testHoles(t, some) })
	}
}

func testHoles(t *testing.T, cases []holeCase) {
	holeTime := howLong(8*time.Second, 10*time.Second)
	w := newWorld(t)
	target := loadTarget(t)
	var names []string
	for _, c := range cases {
		names = append(names, c.name())
	}
	pairRelays(w, 2, names...)
	pairs := make([]*pair, len(cases))
	for i, c := range cases {
		pairs[i] = w.wiredPair(c.name(), c.routes, target)
	}
	loads := make([]*load, len(cases))
	for i, p := range pairs {
		loads[i] = startLoad(t, p.addr, howLong(3, 16), howLong[int64](1<<20, 64<<20), holeTime+3*time.Second)
		loads[i].tick()
	}
	watch := testenv.Start(t)
	time.Sleep(time.Second) // the loads are under way
	lost, changed := map[*node]float64{}, map[*node]float64{}
	for i, p := range pairs {
		for _, n := range []*node{p.inlet, p.outlet} {
			lost[n], changed[n] = n.metric("culvert_channel_path_losses_total"), n.metric("culvert_channel_path_changes_total")
			if lost[n] != 0 && watch.Lost() < holeInterval/2 { // else the wires, which are this process's, have stood still
				t.Errorf("%s: %s has lost %v paths before the hole", cases[i].name(), n.name, lost[n])
			}
		}
	}
	began := time.Now()
	var wires []*wire
	for i, c := range cases {
		wires = append(wires, c.dig(pairs[i]))
	}
	time.AfterFunc(holeTime, func() {
		for _, w := range wires {
			w.hole()
		}
	})
	var report strings.Builder
	for i, p := range pairs {
		for _, n := range []*node{p.inlet, p.outlet} {
			noticed := func() bool {
				if n.metric("culvert_channel_path_losses_total") > lost[n] {
					return true
				}
				// An inlet that was first has come by the other route.
				return n == p.outlet && cases[i].routes > 1 && n.metric("culvert_channel_path_changes_total") > changed[n]
			}
			// Two intervals, and as long as a busy machine takes, but not when the hole has gone.
			if !eventually(time.Until(began.Add(2*holeInterval+4*time.Second)), noticed) {
				t.Errorf("%s: %s has not noticed the hole after %v", cases[i].name(), n.name, time.Since(began))
			}
		}
		fmt.Fprintf(&report, "\n%s: noticed %v", cases[i].name(), time.Since(began).Round(time.Millisecond))
	}
	t.Logf("noticed by inlet and outlet:%s", &report)
	for i, l := range loads {
		l.name = cases[i].name()
		l.wait(func() int { return 1 })
		if cases[i].routes > 1 {
			l.pauseBelow(holeTime - time.Second) // a second route is tried after a second: not when the hole has gone
		} else {
			l.pauseBelow(holeTime + 15*time.Second)
		}
	}
}
