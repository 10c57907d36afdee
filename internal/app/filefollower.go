package app

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A fileFollower looks at a file again and again, and knows whether what it has could
// be taken.
type fileFollower struct {
	asked   chan struct{} // capacity 1: look at the file now
	every   time.Duration
	reloads *prometheus.CounterVec // result
	inUse   prometheus.Gauge

	// beyond says more of an error of the file system, where this process knows it.
	beyond func(error) error

	mu      sync.Mutex
	waiting []chan struct{} // of those who have asked
	ended   bool            // nobody reads any more

	failed string // why the file could not be taken when it was last read; "" when it could. Of run's goroutine
}

// newFileFollower returns one with these metrics.
func newFileFollower(r prometheus.Registerer, reloads, reloadsHelp, inUse, inUseHelp string) *fileFollower {
	f := &fileFollower{
		asked: make(chan struct{}, 1), every: identityEvery, beyond: func(err error) error { return err },
		reloads: newCounterVec(r, reloads, reloadsHelp, "result"),
		inUse:   prometheus.NewGauge(prometheus.GaugeOpts{Name: inUse, Help: inUseHelp}),
	}
	f.reloads.WithLabelValues("ok") // shown from the start
	f.reloads.WithLabelValues("failed")
	f.inUse.Set(1)
	r.MustRegister(f.inUse)
	return f
}

// ask makes run have the file read now, whether or not it has changed. What it returns
// is closed when that is done, or when nobody reads any more.
func (f *fileFollower) ask() <-chan struct{} {
	done := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		close(done)
		return done
	}
	f.waiting = append(f.waiting, done)
	poke(f.asked)
	return done
}

// asking returns those that wait now.
func (f *fileFollower) asking() []chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.waiting
	f.waiting = nil
	return waiting
}

// end says that nobody reads any more.
func (f *fileFollower) end() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	closeChannels(f.asking())
}

// run calls read when somebody asks, and when changed says so, until ctx ends.
func (f *fileFollower) run(ctx context.Context, changed func() bool, read func(asked bool)) {
	defer f.end()
	t := time.NewTicker(f.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.asked:
			waiting := f.asking()
			read(true)
			closeChannels(waiting)
		case <-t.C:
			if changed() {
				read(false)
			}
		}
	}
}

// fails notes why the file cannot be taken, and reports whether that is to be told: the
// same failure is told, and counted, once, unless somebody has asked.
func (f *fileFollower) fails(err error, asked bool) (tell bool) {
	tell = asked || f.failed != err.Error()
	f.failed = err.Error()
	f.inUse.Set(0)
	if tell {
		f.reloads.WithLabelValues("failed").Inc()
	}
	return tell
}

// closeChannels closes each.
func closeChannels(all []chan struct{}) {
	for _, c := range all {
		close(c)
	}
}
