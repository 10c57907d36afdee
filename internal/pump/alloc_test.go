package pump

import (
	"io"
	"runtime/debug"
	"testing"
	"time"
)

// TestAllocsPerChunk carries chunks that are read at once, by each way to copy.
func TestAllocsPerChunk(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's sync.Pool drops buffers at random")
	}
	pipes, none := new(Pipes), noPipes()
	defer pipes.Close()
	defer none.Close()
	for _, way := range []struct {
		name  string
		start func() *copying
	}{
		{"splice", func() *copying {
			return startSplice(t, Options{Idle: time.Minute, Pipes: pipes, Counters: new(Counters)})
		}},
		{"splice without pipes", func() *copying {
			return startSplice(t, Options{Idle: time.Minute, Pipes: none, Counters: new(Counters)})
		}},
		{"both", func() *copying { return startBoth(t) }},
		{"both with limits", func() *copying {
			c, _ := startLimited(t, NewRate(0), NewRate(0))
			return c
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			c := way.start()
			soon(c.left)
			soon(c.right)
			chunk, back := make([]byte, 8<<10), make([]byte, 8<<10)
			hundred := func() {
				for range 100 {
					_, werr := c.left.Write(chunk)
					_, rerr := io.ReadFull(c.right, back)
					if werr != nil || rerr != nil {
						t.Errorf("%v, %v", werr, rerr)
					}
				}
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the pools stay
			hundred()
			// A few are the runtime's own, which fills its caches anew when a busy
			// machine moves goroutines about; a chunk that allocates makes a hundred.
			const few = 10
			if got := testing.AllocsPerRun(20, hundred); got > few {
				t.Errorf("%v allocations for a hundred chunks, want none of their own", got)
			}
		})
	}
}
