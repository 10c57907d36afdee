package pump

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// carry moves total bytes in chunks of size by a rate, and returns how long that took.
func carry(r *Rate, total, size int) time.Duration {
	start := time.Now()
	for total > 0 {
		n := min(size, total)
		_ = r.wait(r.take(n), nil)
		total -= n
	}
	return time.Since(start)
}

func TestRateOfOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.Int64Range(1<<10, 1<<30).Draw(rt, "limit")
		size := rapid.IntRange(1, 256<<10).Draw(rt, "chunk")
		total := rapid.IntRange(1, 64).Draw(rt, "chunks") * size
		synctest.Test(t, func(*testing.T) {
			took := carry(NewRate(limit), total, size)
			want := time.Duration(float64(total) / float64(limit) * float64(time.Second))
			// A chunk may be ahead by the slack; a timer is never early.
			if took < want-2*rateSlack || took > want+time.Microsecond {
				t.Errorf("%d bytes in chunks of %d at %d a second took %v, want %v", total, size, limit, took, want)
			}
		})
	})
}

// Those that share a rate get the same, whoever came first, and together what it says.
func TestRateIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size, streams = 1 << 20, 8 << 10, 10
		r := NewRate(limit)
		moved := make([]int, streams)
		cut := make(chan struct{})
		var running sync.WaitGroup
		for i := range streams {
			running.Go(func() {
				for {
					if r.wait(r.take(size), cut) != nil {
						return
					}
					moved[i] += size
				}
			})
		}
		time.Sleep(10 * time.Second)
		close(cut)
		running.Wait()
		total := 0
		for _, n := range moved {
			total += n
		}
		if low, high := 10*limit-streams*size, 10*limit+streams*size; total < low || total > high {
			t.Errorf("%d bytes in 10 s at %d a second", total, limit)
		}
		if least, most := slices.Min(moved), slices.Max(moved); most-least > 2*size {
			t.Errorf("one has moved %d bytes and another %d", least, most)
		}
	})
}

// What is not used is not saved up.
func TestRateSavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(1 << 20)
		carry(r, 1<<20, 4<<10)
		time.Sleep(time.Hour)
		if took := carry(r, 1<<20, 4<<10); took < time.Second-2*rateSlack {
			t.Errorf("after an hour of nothing a second's worth took %v", took)
		}
	})
}

// Who pauses goes by a new rate at once: a higher one, a lower one, none, and one where
// there was none.
func TestRateChanges(t *testing.T) {
	for _, tt := range []struct {
		name      string
		from, to  int64
		want, not time.Duration
	}{
		{"higher", 1 << 10, 1 << 20, 10*time.Second + 88*time.Millisecond, 11 * time.Second},
		{"lower", 10 << 10, 5 << 10, 10 * time.Second, 11 * time.Second}, // was paid for by then
		{"lower, later", 5 << 10, 1 << 10, 60 * time.Second, 61 * time.Second},
		{"none", 1 << 10, 0, 10 * time.Second, 10*time.Second + time.Millisecond},
		{"one where there was none", 0, 1 << 10, 0, time.Millisecond}, // what was moved before is not asked for
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewRate(tt.from)
				start, at := time.Now(), r.take(100<<10)
				time.AfterFunc(10*time.Second, func() { r.Set(tt.to) })
				if err := r.wait(at, nil); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < tt.want-2*rateSlack || took > tt.not {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				time.Sleep(time.Minute) // past the change, which the bubble waits for
			})
		})
	}
}

func TestRateIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(1)
		cut := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(cut) })
		start := time.Now()
		if err := r.wait(r.take(1<<30), cut); !errors.Is(err, errCut) {
			t.Errorf("got %v, want %v", err, errCut)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want a second", took)
		}
	})
}

// A chunk is a part of a second's worth, neither more than there is room for nor too
// little to be worth its cost.
func TestRateChunk(t *testing.T) {
	for _, tt := range []struct {
		limit int64
		want  int
	}{{0, 64 << 10}, {1, leastChunk}, {1 << 20, 1 << 20 / 100}, {1 << 40, 64 << 10}} {
		if got := NewRate(tt.limit).chunk(64<<10, 100); got != tt.want {
			t.Errorf("at %d a second: %d, want %d", tt.limit, got, tt.want)
		}
	}
	if got := NewRate(1).chunk(100, 100); got != 100 {
		t.Errorf("of a buffer of 100 bytes: %d", got)
	}
}
