package channel

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A news is a Trace that blocks while it is held.
type news struct {
	hold chan struct{} // closed to go on

	mu   sync.Mutex
	told []string
}

func (n *news) tell(c *Channel, what string) {
	if c.keeper == nil {
		return
	}
	<-n.hold
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, what)
}

func (n *news) trace() *Trace {
	return &Trace{
		Lost:  func(c *Channel, route int, err error) { n.tell(c, fmt.Sprintf("lost %d %v", route, err != nil)) },
		Moved: func(c *Channel, m Move) { n.tell(c, "moved "+string(m.Cause)); _ = c.State() },
	}
}

// TestTraceThatBlocks holds a Trace up, as a log does whose reader has stopped:
// the channel goes on, over other paths too, and so does whoever asks for its
// state. What has happened is told later, in order.
func TestTraceThatBlocks(t *testing.T) {
	for _, tt := range []struct {
		name string
		cuts int
		want int // of the last events that happen
	}{{"a few", 3, 6}, {"more than are kept", 50, maxNews + 1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &news{hold: make(chan struct{})}
				l := newLabOn(t, memPair, 1, Settings{Trace: n.trace()}, Timing{}, Limits{})
				x, y := l.open()
				go func() { _, _ = io.Copy(onlyWriter{y}, onlyReader{y}) }()
				var happened []string
				for i := range tt.cuts {
					exchange(t, x, fmt.Sprint("number ", i))
					time.Sleep(time.Second)
					l.cutAll()
					synctest.Wait()
					waitUp(t, x, true)
					happened = append(happened, "lost 0 true", "moved lost")
					if st := x.State(); !st.Up || st.Route != 0 {
						t.Fatalf("state %+v, want up", st)
					}
				}
				exchange(t, x, "and on")
				if len(n.told) > 0 {
					t.Fatalf("told %q while it is held", n.told)
				}
				close(n.hold)
				synctest.Wait()
				// The first was on its way when more came than are kept.
				want := happened
				if tt.want < len(happened) {
					want = append([]string{happened[0]}, happened[len(happened)-maxNews:]...)
				}
				if !slices.Equal(n.told, want) {
					t.Errorf("told %q, want %q", n.told, want)
				}
				closeChannels(t, x, y)
			})
		})
	}
}

// TestRunWaitsForTheTrace ends a channel while its Trace is held: nothing of it
// runs any more when Run has returned.
func TestRunWaitsForTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &news{hold: make(chan struct{})}
		l := newLabOn(t, memPair, 1, Settings{Trace: n.trace()}, Timing{}, Limits{})
		x, err := l.caller.Dial(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		l.run(<-l.opened)
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_ = x.Run(ctx)
			close(ended)
		}()
		drainAll(t, x)
		l.cutAll()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("Run has returned while a func of the Trace runs")
		default:
		}
		close(n.hold)
		<-ended
		if len(n.told) == 0 || n.told[0] != "lost 0 true" {
			t.Errorf("told %q, want the loss first", n.told)
		}
	})
}

// exchange sends text and wants it back.
func exchange(t *testing.T, c *Channel, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v; want %q", got, err, text)
	}
}
