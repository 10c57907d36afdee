package channel

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A side that may use a path no more ends it: the initiator makes another at once, and
// nothing is lost.
func TestLeave(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		stop := busy(t, x, y, time.Second)
		revoked := errors.New("a relay on it was revoked")
		for i, c := range []*Channel{x, y} {
			time.Sleep(10 * time.Second)
			left := c.State().Route
			l.refuseRoutes(func(route int) error {
				if route == 0 {
					return errNoRoute
				}
				return nil
			})
			c.Leave(revoked)
			if st := c.State(); c == x && (st.Up || !errors.Is(st.Err, revoked)) {
				t.Errorf("state after leaving route %d: %+v, want no path and why", left, st)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			for _, side := range []*Channel{x, y} {
				if st := side.State(); !st.Up || side == x && st.Route != 1 {
					t.Errorf("after leave %d: %+v, want a path over route 1", i, st)
				}
			}
			if moved, lost := d.counts(); moved != i+1 || lost == 0 {
				t.Errorf("%d moves and %d losses after %d paths were left", moved, lost, i+1)
			}
		}
		stop()
		closeChannels(t, x, y)
		x.Leave(revoked) // nothing is left to leave
		if err := x.Err(); errors.Is(err, revoked) {
			t.Errorf("a closed channel ended with %v", err)
		}
	})
}

// Without a path there is none to leave: what it is without it for, stays.
func TestLeaveWithoutAPath(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		ends := []<-chan error{drainAll(t, x), drainAll(t, y)}
		time.Sleep(time.Second)
		l.refuseRoutes(noRoutes)
		first, second := errors.New("first"), errors.New("second")
		x.Leave(first)
		time.Sleep(30 * time.Second)
		x.Leave(second)
		y.Leave(second)
		if st := x.State(); !errors.Is(st.Err, first) || time.Since(st.Since) != 30*time.Second {
			t.Errorf("state %+v, want the first reason of 30 s ago", st)
		}
		time.Sleep(31 * time.Second)
		for _, end := range ends {
			if err := <-end; err == nil {
				t.Error("no error after the grace time")
			}
		}
		if err := x.Err(); !errors.Is(err, first) {
			t.Errorf("the initiator's channel ended with %v, want the reason in it", err)
		}
	})
}
