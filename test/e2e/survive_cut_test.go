//go:build e2e && linux

package e2e

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// TestSurviveCuts resets connections at random moments: of the inlet or of the
// outlet, paths and what else there is, at one relay or the other; 200 of them
// in the long form.
func TestSurviveCuts(t *testing.T) {
	w := newWorld(t)
	pairRelays(w, 2, "cut")
	p := w.wiredPair("cut", 2, loadTarget(t))
	wires := append(append([]*wire{}, p.in...), p.out...)
	const pace = 200 * time.Millisecond // on average
	wanted := howLong(20, 200)
	l := startLoad(t, p.addr, 16, howLong[int64](4<<20, 64<<20), time.Duration(wanted)*pace*3/2)
	l.tick()
	var cuts atomic.Int64
	v := every(t, pace/20, func() {
		if rand.IntN(20) > 0 {
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
