package channel

import (
	"fmt"
	"io"
	"runtime/debug"
	"testing"
)

// fewAllocs is what a hundred turns may allocate although no turn does: a
// sync.Pool's list for a processor that had none, the runtime's caches of blocked
// goroutines and of type assertions. A machine that is busy with other things
// moves goroutines about and shows them; a turn that allocates makes a hundred.
const fewAllocs = 10

// allocsOf returns how many allocations a hundred calls of once make when
// everything that is made but once has been made. All of the process are
// counted: both ends of a path, and what runs beside them.
func allocsOf(t *testing.T, once func()) float64 {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the pools stay
	hundred := func() {
		for range 100 {
			once()
		}
	}
	hundred()
	return testing.AllocsPerRun(20, hundred)
}

// TestAllocsPerRecord writes and reads in steady state, either way.
func TestAllocsPerRecord(t *testing.T) {
	for _, c := range carriers {
		for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10} {
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				x, y := c.open(t)
				data, got := make([]byte, size), make([]byte, size)
				allocs := allocsOf(t, func() {
					for _, way := range [2][2]io.ReadWriter{{x, y}, {y, x}} {
						if _, err := way[0].Write(data); err != nil {
							t.Error(err)
						}
						if _, err := io.ReadFull(way[1], got); err != nil {
							t.Error(err)
						}
					}
				})
				if allocs > fewAllocs {
					t.Errorf("%.0f allocations for a hundred writes and reads each way, want none of their own", allocs)
				}
				closing := make(chan struct{})
				go func() {
					defer close(closing)
					_ = x.Close()
				}()
				_ = y.Close()
				<-closing
			})
		}
	}
}

// TestAllocsOfQueue holds, copies and gives up bytes across chunks, within a
// budget.
func TestAllocsOfQueue(t *testing.T) {
	budget := NewBuffers(1 << 20)
	q := &queue{}
	in, out := make([]byte, chunkSize+1000), make([]byte, chunkSize+1000)
	allocs := allocsOf(t, func() {
		for n := 0; n < len(in); {
			if q.room() == 0 {
				if !budget.take(q.held(), nil) {
					t.Error("the budget is used up")
				}
				q.grow()
			}
			n += q.append(in[n:])
		}
		if n := q.copyAt(q.base, out); n != len(out) {
			t.Errorf("copied %d bytes, want %d", n, len(out))
		}
		if woken := budget.give(q.drop(q.end)); woken != nil {
			t.Error("somebody was woken")
		}
	})
	if allocs > fewAllocs {
		t.Errorf("%.0f allocations for a hundred turns, want none of their own", allocs)
	}
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are held at the end", used)
	}
}
