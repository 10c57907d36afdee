//go:build e2e && linux

package e2e

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestSurviveCuts resets connections at random moments: of the inlet or of the
// outlet, paths and what else there is, at one relay or the other; 200 of them
// in the long form.
func TestSurviveCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pairRelays(w, 2, "cut")
	p := w.wiredPair("cut", 2, loadTarget(t))
	wires := append(append([]*wire{}, p.in...), p.out...)
	wanted := howLong(20, 200)
	over := time.Duration(wanted) * 300 * time.Millisecond
	l := startLoad(t, p.addr, 16, howLong[int64](4<<20, 64<<20), over)
	l.tick()
	// As many moments as are wanted, at random, so that the last of them are left
	// time to be made up for when there was nothing to cut.
	due := make([]time.Duration, wanted)
	for i := range due {
		due[i] = rand.N(over * 4 / 5)
	}
	slices.Sort(due)
	began := time.Now()
	var cuts atomic.Int64
	v := every(t, 10*time.Millisecond, func() {
		n := int(cuts.Load())
		if n == wanted || time.Since(began) < due[n] {
			return
		}
		for _, i := range rand.Perm(len(wires)) {
			if wires[i].cutOne() {
				cuts.Add(1)
				return
			}
		}
	})
	l.wait(func() int {
		v.end()
		return int(cuts.Load())
	})
	lost := p.inlet.metric("culvert_channel_path_losses_total")
	t.Logf("%d connections cut, the inlet has lost %v paths", cuts.Load(), lost)
	if int(cuts.Load()) < wanted {
		t.Errorf("only %d connections were cut, want %d", cuts.Load(), wanted)
	}
}
