package cli

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestProcs(t *testing.T) {
	type look struct {
		used float64
		n    int // looks
		want int
	}
	for _, tt := range []struct {
		name  string
		limit int
		looks []look
	}{
		{"idle stays at one", 8, []look{{0, 20, 1}, {0.8, 5, 1}}},
		{"busy doubles to the limit", 6, []look{{0.95, 1, 2}, {1.9, 1, 4}, {3.5, 1, 6}, {6, 3, 6}}},
		{"work for two stays at two", 8, []look{{1, 1, 2}, {1.2, 30, 2}}},
		{"calm goes down one by one", 4, []look{{1, 1, 2}, {2, 1, 4}, {0.1, 7, 4}, {0.1, 1, 3}, {0.1, 8, 2}, {0.1, 8, 1}, {0, 9, 1}}},
		{"a busy look begins anew", 4, []look{{1, 1, 2}, {0.1, 7, 2}, {1, 1, 2}, {0.1, 7, 2}, {0.1, 1, 1}}},
		{"a limit of one", 1, []look{{1, 5, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := procs{n: 1}
			for i, l := range tt.looks {
				got := p.n
				for range l.n {
					got = p.next(l.used, tt.limit)
				}
				if got != l.want {
					t.Fatalf("after looks %v: %d processors, want %d", tt.looks[:i+1], got, l.want)
				}
			}
		})
	}
}

// TestScaleProcs looks at what the runtime has while a process seems to use one
// processor whole, and then nothing.
func TestScaleProcs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.GOMAXPROCS(0)
	began := time.Now()
	var calm atomic.Bool
	used := func() (time.Duration, bool) {
		if calm.Load() {
			return 0, true
		}
		return time.Since(began), true
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { scaleProcs(ctx, used) })
	await := func(want int) {
		t.Helper()
		end := time.Now().Add(time.Minute)
		for runtime.GOMAXPROCS(0) != want {
			if time.Now().After(end) {
				t.Fatalf("GOMAXPROCS is %d, want %d", runtime.GOMAXPROCS(0), want)
			}
			runtime.Gosched()
		}
	}
	await(min(2, before))
	calm.Store(true)
	await(1)
	cancel()
	done.Wait()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("GOMAXPROCS is %d in the end, want %d as before", got, before)
	}
}

// TestScaleProcsLeaves: what the environment sets stays, and what cannot be
// known is not acted on.
func TestScaleProcsLeaves(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	scaleProcs(t.Context(), func() (time.Duration, bool) { return 0, false }) // returns at once
	t.Setenv("GOMAXPROCS", "2")
	scaleProcs(t.Context(), cpuTime)
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("GOMAXPROCS is %d, want %d", got, before)
	}
}
