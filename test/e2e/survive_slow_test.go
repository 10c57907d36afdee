//go:build e2e && linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// TestSurviveSlowLink keeps a link of 1 Mbit/s full, one way and both ways, on
// either side of a relay, with a keepalive of a second. It is slow, but alive:
// nobody may take it for dead.
func TestSurviveSlowLink(t *testing.T) {
	t.Parallel()
	for try := 1; ; try++ {
		watch := testenv.Start(t)
		var faults []string
		ran := t.Run(fmt.Sprint("try ", try), func(t *testing.T) { faults = slowLinks(t) })
		if len(faults) == 0 {
			return
		}
		// The links are this process's: when it stands still for long, so do they.
		if lost := watch.Lost(); lost < time.Second/2 || try == 5 || !ran {
			t.Fatalf("on a machine that has lost %v:\n%s", lost, strings.Join(faults, "\n"))
		}
	}
}

// slowLinks keeps links full for a while, and returns what was taken for dead.
func slowLinks(t *testing.T) (faults []string) {
	t.Helper()
	const rate = 1_000_000 / 8
	type slow struct {
		leg               leg
		toOutlet, toInlet int
		name              string
	}
	var cases []slow
	for _, l := range []leg{inletLeg, outletLeg} {
		cases = append(cases, slow{l, rate, 0, fmt.Sprint(l, "-to-outlet")}, slow{l, 0, rate, fmt.Sprint(l, "-to-inlet")}, slow{l, rate, rate, fmt.Sprint(l, "-both-ways")})
	}
	w := newWorld(t)
	target := loadTarget(t)
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	pairRelays(w, 1, names...)
	over := howLong(8*time.Second, time.Minute)
	var pairs []*pair
	var loads []*load
	for _, c := range cases {
		p := w.pairOver(c.name, 1, target, func(l leg, relay string) string {
			switch {
			case l != c.leg:
				return relay
			case l == inletLeg:
				return w.slowWire(relay, c.toOutlet, c.toInlet).addr
			default: // outlets connect to relays
				return w.slowWire(relay, c.toInlet, c.toOutlet).addr
			}
		})
		pairs = append(pairs, p)
	}
	for _, p := range pairs {
		const streams = 4
		loads = append(loads, startLoad(t, p.addr, streams, int64(rate*over.Seconds()/streams), 0))
	}
	for i, l := range loads {
		l.name = cases[i].name
		l.wait(func() int { return 0 })
	}
	for _, p := range pairs {
		for _, n := range []*node{p.inlet, p.outlet} {
			for _, metric := range []string{"culvert_channel_path_losses_total", "culvert_channel_path_changes_total"} {
				if got := n.metric(metric); got != 0 {
					faults = append(faults, fmt.Sprintf("%s: %s is %v, want 0:\n%s", n.name, metric, got, n.log.tail(10)))
				}
			}
		}
	}
	return faults
}
