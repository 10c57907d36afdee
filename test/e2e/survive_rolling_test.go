//go:build e2e && linux

package e2e

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// TestSurviveRollingRestart stops three relays in turn, as a new version is
// rolled out: each is asked to end, ends within its drain time, and starts again.
func TestSurviveRollingRestart(t *testing.T) {
	t.Parallel()
	w, relays := manyRoutes(t, 3, loadTarget(t))
	l := startLoad(t, w.at("inlet", "load"), 16, howLong[int64](4<<20, 64<<20), howLong(10*time.Second, time.Minute))
	l.tick()
	watch := testenv.Start(t)
	restarts := 0
	for range howLong(1, 5) {
		for _, r := range relays {
			time.Sleep(500 * time.Millisecond) // traffic flows
			began := time.Now()
			r.stop()
			t.Logf("%s has ended after %v", r.name, time.Since(began).Round(time.Millisecond))
			r.restart().wantReady()
			restarts++
			if !eventually(patience, func() bool { return w.node("outlet").metric("culvert_outlet_registrations") == 3 }) {
				t.Fatal("the outlet does not register again")
			}
		}
	}
	moved := w.node("inlet").metric(`culvert_channel_path_changes_total{cause="asked"}`)
	lost := w.node("inlet").metric("culvert_channel_path_losses_total")
	l.wait(func() int { return restarts })
	t.Logf("the inlet has moved %v times first and lost %v paths", moved, lost)
	pause := 8 * time.Second
	if calm(watch) { // the goal is one
		pause = 3 * time.Second
	}
	l.pauseBelow(pause)
}
