package testenv

import (
	"sync"
	"testing"
	"time"
)

// tick is how often a watch looks whether the process runs.
const tick = 5 * time.Millisecond

// A Watch measures how long something takes, less the time for which the machine has
// kept this process from running: a bound on that is one on the program, whatever else
// the machine has to do.
type Watch struct {
	began time.Time

	mu   sync.Mutex
	last time.Time // of the looks
	lost time.Duration
}

// Start starts a watch, which looks until the test has ended.
func Start(t testing.TB) *Watch {
	t.Helper()
	now := time.Now()
	w := &Watch{began: now, last: now}
	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.look(time.Now(), true)
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		looking.Wait()
	})
	return w
}

// Took returns the time since Start, less what was lost.
func (w *Watch) Took() time.Duration {
	now := time.Now()
	return now.Sub(w.began) - w.look(now, false)
}

// Lost returns for how long since Start the machine has kept the process from running,
// as far as could be seen.
func (w *Watch) Lost() time.Duration { return w.look(time.Now(), false) }

// look returns what was lost until now. regular says that it is the look of a tick; one
// in between, which may come before the look that is late, changes nothing unless that is
// late.
func (w *Watch) look(now time.Time, regular bool) (lost time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := now.Sub(w.last) - tick
	if late > tick {
		w.lost += late
	}
	if (regular || late > tick) && now.After(w.last) {
		w.last = now
	}
	return w.lost
}
