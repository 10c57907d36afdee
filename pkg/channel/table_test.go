package channel

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// openAs opens a channel whose initiator is another process than the lab's.
func (l *lab) openAs(local *Local) (x, y *Channel) {
	l.t.Helper()
	d := *l.caller
	d.Local = local
	x, err := d.Dial(l.t.Context(), 0)
	if err != nil {
		l.t.Fatalf("Dial: %v", err)
	}
	y = <-l.opened
	l.run(x)
	l.run(y)
	return x, y
}

// openUp is openAs after the lab's paths were refused.
func (l *lab) openUp(local *Local) (x, y *Channel) {
	l.refuseRoutes(nil)
	x, y = l.openAs(local)
	l.refuseRoutes(noRoutes)
	return x, y
}

// isOver reports whether c is, for a LostError of cd.
func isOver(c *Channel, cd code.Code) bool {
	var lost *LostError
	return errors.As(c.Err(), &lost) && lost.Code == cd
}

// detachInTurn takes the paths away, one after the other, and leaves none.
func (l *lab) detachInTurn() {
	l.refuseRoutes(noRoutes)
	l.mu.Lock()
	paths := l.paths
	l.mu.Unlock()
	for _, p := range paths {
		p.cut()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// TestDetachedLimits takes the paths of more channels than may be without: the
// oldest of that process end, or the oldest of all.
func TestDetachedLimits(t *testing.T) {
	limits := Limits{Detached: 5, DetachedPerInstance: 3}
	tests := []struct {
		name string
		by   []int // which process each channel is of
		ends []bool
	}{
		{"of one process", []int{0, 0, 0, 0, 0}, []bool{true, true, false, false, false}},
		{"of one among others", []int{1, 0, 0, 0, 0}, []bool{false, true, false, false, false}},
		{"in all", []int{0, 1, 2, 0, 1, 2, 0}, []bool{true, true, false, false, false, false, false}},
		{"at the limits", []int{0, 0, 0, 1, 1}, []bool{false, false, false, false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLabOn(t, memPair, 1, Settings{}, Timing{}, limits)
				var processes []*Local
				for range 3 {
					processes = append(processes, newLocal(t))
				}
				var ys []*Channel
				for _, i := range tt.by {
					_, y := l.openAs(processes[i])
					ys = append(ys, y)
					drainAll(t, y)
				}
				synctest.Wait()
				l.detachInTurn()
				detached := 0
				for i, y := range ys {
					if got := isOver(y, code.Limit); got != tt.ends[i] {
						t.Errorf("channel %d: %v; want its end to be %v", i, y.Err(), tt.ends[i])
					}
					if !tt.ends[i] {
						detached++
					}
				}
				if n := l.table.Detached(); n != detached {
					t.Errorf("%d channels are detached, want %d", n, detached)
				}
			})
		})
	}
}

// TestDetachedElsewhere has two processes claim the same instance, which is no
// more than a claim: they do not use up each other's share.
func TestDetachedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabOn(t, memPair, 1, Settings{}, Timing{}, Limits{DetachedPerInstance: 1})
		_, victim := l.open()
		thief := newLocal(t)
		thief.instance = l.caller.Local.instance
		_, y := l.openAs(thief)
		drainAll(t, victim)
		drainAll(t, y)
		synctest.Wait()
		l.detachInTurn()
		if err := victim.Err(); err != nil {
			t.Errorf("another identity's channel has ended this one: %v", err)
		}
	})
}

// TestEvictedInTime spares a channel that has a path again by the time that it
// is to be ended.
func TestEvictedInTime(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	endTooMany([]*Channel{y})
	if c := l.table.EvictOldest(x.keeper.d.Local.Identifier()); c != nil {
		t.Errorf("EvictOldest = %v, want nobody", c.ID())
	}
	if err := y.Err(); err != nil {
		t.Errorf("ended with a path: %v", err)
	}
	closeChannels(t, x, y)
}

// TestEvictOldest ends one identity's channels that have no path, whichever
// processes they are of, the oldest first, and leaves all others.
func TestEvictOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabOn(t, memPair, 1, Settings{}, Timing{}, Limits{})
		one, other := newLocal(t), newLocal(t)
		two, err := NewLocal(one.id)
		if err != nil {
			t.Fatal(err)
		}
		var ys []*Channel
		for _, local := range []*Local{other, one, two, one} {
			_, y := l.openAs(local)
			ys = append(ys, y)
			drainAll(t, y)
		}
		synctest.Wait()
		l.detachInTurn()
		_, up := l.openUp(one)
		for i, want := range []*Channel{ys[1], ys[2], ys[3], nil} {
			if got := l.table.EvictOldest(one.Identifier()); got != want {
				t.Fatalf("call %d ends another channel than the oldest", i+1)
			}
			if want != nil && !isOver(want, code.Limit) {
				t.Errorf("call %d: %v, want the channel's end for a limit", i+1, want.Err())
			}
		}
		if n := l.table.Detached(); n != 1 {
			t.Errorf("%d channels are detached, want 1", n)
		}
		for _, c := range []*Channel{ys[0], up} {
			if err := c.Err(); err != nil {
				t.Errorf("a channel that was not meant has ended: %v", err)
			}
		}
	})
}

// TestNames starts another process of the same identity: with the same name it
// ends the channels of the one before, else it does not.
func TestNames(t *testing.T) {
	named := func(t *testing.T, l *lab, name string) *Local {
		local, err := NewLocalWith(l.caller.Local.id, LocalConfig{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return local
	}
	for _, tt := range []struct {
		name          string
		before, after string
		ends          bool
	}{{"same name", "a", "a", true}, {"another name", "a", "b", false}, {"no name", "", "", false}, {"named after nameless", "", "a", false}, {"nameless after named", "a", "", false}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, 1, Settings{}, Timing{}, Limits{})
			old := named(t, l, tt.before)
			_, y1 := l.openAs(old)
			_, y2 := l.openAs(old)
			stranger, err := NewLocalWith(newLocal(t).id, LocalConfig{Name: tt.after})
			if err != nil {
				t.Fatal(err)
			}
			_, other := l.openAs(stranger)
			_, y3 := l.openAs(named(t, l, tt.after))
			for _, y := range []*Channel{y1, y2} {
				if got := isOver(y, code.Replaced); got != tt.ends {
					t.Errorf("the old channel: %v; want its end to be %v", y.Err(), tt.ends)
				}
			}
			for _, y := range []*Channel{other, y3} {
				if err := y.Err(); err != nil {
					t.Errorf("a channel that was not meant has ended: %v", err)
				}
			}
		})
	}
}
