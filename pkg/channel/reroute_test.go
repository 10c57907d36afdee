package channel

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A listed is the routes of a lab's caller, which can be exchanged.
type listed struct{ now atomic.Pointer[[]int] }

func newListed(l *lab, routes ...int) *listed {
	s := &listed{}
	s.now.Store(&routes)
	l.caller.Listed = func() []int { return *s.now.Load() }
	return s
}

// set lists other routes, and says so.
func (s *listed) set(c *Channel, routes ...int) {
	s.now.Store(&routes)
	c.Reroute()
}

// A channel leaves a route that is listed no more for one that is, and is never
// without a path.
func TestRerouteLeavesWhatIsNotListed(t *testing.T) {
	inBubble(t, 3, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		s := newListed(l, 0, 1)
		x, y := l.open()
		stop := busy(t, x, y, 10*time.Millisecond)
		for _, to := range []int{2, 1, 0} {
			s.set(x, to)
			waitRoute(t, x, to, time.Second)
		}
		s.set(x, 1, 0) // a better one
		waitRoute(t, x, 1, 31*time.Second)
		s.set(x, 0, 1) // the same in another order
		waitRoute(t, x, 0, 31*time.Second)
		synctest.Wait() // until that is told
		stop()
		closeChannels(t, x, y)
		var causes []Cause
		for _, m := range d.moves() {
			causes = append(causes, m.Cause)
			if m.Down != 0 {
				t.Errorf("moved %+v, want never down", m.Move)
			}
		}
		if want := []Cause{Asked, Asked, Asked, Returned, Returned}; !slices.Equal(causes, want) {
			t.Errorf("moved since %v, want %v", causes, want)
		}
		if _, lost := d.counts(); lost != 0 {
			t.Errorf("%d paths were lost", lost)
		}
	})
}

// Where no listed route works the channel stays on what it has, and goes on trying,
// not in a tight loop.
func TestRerouteBreaksNothing(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		s := newListed(l, 0)
		x, y := l.open()
		stop := busy(t, x, y, 10*time.Millisecond)
		var tries atomic.Int32
		l.refuseRoutes(func(route int) error { tries.Add(1); return errNoRoute })
		s.set(x, 1)
		time.Sleep(time.Minute)
		if n := tries.Load(); n < 10 || n > 14 {
			t.Errorf("%d attempts in a minute, want one each %s", n, leavePause)
		}
		if st := x.State(); !st.Up || st.Route != 0 {
			t.Fatalf("%+v, want the path that there was", st)
		}
		l.refuseRoutes(nil)
		waitRoute(t, x, 1, leavePause+time.Second) // an attempt may be under way this very moment
		// What worked once, and is listed no more, is not fallen back to.
		s.set(x, 0)
		waitRoute(t, x, 0, time.Second)
		var wrong atomic.Int32
		l.refuseRoutes(func(route int) error {
			if route != 0 {
				wrong.Add(1)
			}
			return nil
		})
		l.cutAll()
		synctest.Wait()
		waitUp(t, x, true)
		if wrong.Load() != 0 || x.State().Route != 0 {
			t.Errorf("after the loss of a path %d attempts over a route that is not listed, and route %d", wrong.Load(), x.State().Route)
		}
		stop()
		closeChannels(t, x, y)
	})
}

// A change that comes while there is no path counts from the next attempt on.
func TestRerouteWithoutAPath(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		s := newListed(l, 0)
		x, y := l.open()
		l.refuseRoutes(func(route int) error {
			if route == 0 {
				return errNoRoute
			}
			return nil
		})
		l.cutAll()
		waitUp(t, x, false)
		time.Sleep(5 * time.Second)
		s.set(x, 1)
		waitRoute(t, x, 1, 2*time.Second)
		y.Reroute() // which is not the responder's
		closeChannels(t, x, y)
	})
}

// A process that dials begins at any place of the list.
func TestDialBeginsAnywhere(t *testing.T) {
	l := newLab(t, 0, Settings{}, Timing{}, Limits{})
	newListed(l, 7, 3, 5)
	for first, want := range []int{7, 3, 5, 7} {
		x, err := l.caller.Dial(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		l.run(x)
		y := <-l.opened
		l.run(y)
		if got := x.State().Route; got != want {
			t.Errorf("beginning with %d: route %d, want %d", first, got, want)
		}
		closeChannels(t, x, y)
	}
	none := &Caller{Local: l.caller.Local, Peer: l.caller.Peer, Path: l.caller.Path, Listed: func() []int { return nil }}
	if _, err := none.Dial(t.Context(), 0); err == nil {
		t.Error("no error without routes")
	}
}
