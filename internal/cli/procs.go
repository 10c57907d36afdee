package cli

import (
	"context"
	"os"
	"runtime"
	"time"
)

// A daemon runs Go code on one processor until that is not enough. What it does
// is many short steps that wake each other; on one processor a step that wakes
// the next costs nothing, on several it costs a futex call and an interrupt to a
// processor that slept: a fifth of all processor time for bulk, by
// docs/performance.md. A daemon that has work for several gets them at once.
const (
	procsTime = 250 * time.Millisecond // between two looks
	busyShare = 0.8                    // of its processors: it gets twice as many
	calmShare = 0.5                    // of one less: it gets one less, after
	calmLooks = 8                      // looks in a row
)

// A procs decides how many processors run Go code.
type procs struct {
	n    int
	calm int // looks in a row that one less would have done for
}

// next returns how many there are to be, after a look that has found so many
// processors' worth of time used, and at most limit.
func (p *procs) next(used float64, limit int) int {
	switch {
	case used > busyShare*float64(p.n):
		p.n, p.calm = 2*p.n, 0
	case p.n > 1 && used < calmShare*float64(p.n-1):
		if p.calm++; p.calm >= calmLooks {
			p.n, p.calm = p.n-1, 0
		}
	default:
		p.calm = 0
	}
	p.n = max(1, min(p.n, limit))
	return p.n
}

// scaleProcs sets GOMAXPROCS until ctx ends, unless whoever started this
// process has: theirs stays. used returns the processor time used so far, if it
// is known.
func scaleProcs(ctx context.Context, used func() (time.Duration, bool)) {
	last, ok := used()
	if !ok || os.Getenv("GOMAXPROCS") != "" {
		return
	}
	p := procs{n: 1}
	runtime.GOMAXPROCS(p.n)
	tick := time.NewTicker(procsTime)
	defer tick.Stop()
	defer runtime.SetDefaultGOMAXPROCS()
	for at := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		total, _ := used()
		now := time.Now()
		share := float64(total-last) / float64(now.Sub(at))
		last, at = total, now
		if before := p.n; p.next(share, runtime.NumCPU()) != before {
			setProcs(&p)
		}
	}
}

// setProcs sets GOMAXPROCS to p.n, or to what the runtime would take by itself
// if that is less: it knows this process's affinity and its container's limit,
// which may have changed.
func setProcs(p *procs) {
	runtime.SetDefaultGOMAXPROCS()
	if limit := runtime.GOMAXPROCS(0); p.n < limit {
		runtime.GOMAXPROCS(p.n)
	} else {
		p.n = limit
	}
}
