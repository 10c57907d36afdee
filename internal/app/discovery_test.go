package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// A fakeRelay answers a discovery as a test says.
type fakeRelay struct {
	mu   sync.Mutex
	list []relay.Replica
	err  error
	asks []time.Time
}

// set makes the relay list these from now on, or not answer.
func (r *fakeRelay) set(list []relay.Replica, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list, r.err = list, err
}

// asked returns when the relay was asked.
func (r *fakeRelay) asked() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asks)
}

// discover runs a discovery at one relay for the rest of the bubble.
func discover(t *testing.T, r *fakeRelay) *discovery {
	t.Helper()
	routes := []route.Route{{{Host: "r", Port: 1, Identifier: identity.Identifier{1}}}}
	d := newDiscovery("orders-db", routes, func(context.Context, route.Route, string) ([]relay.Replica, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asks = append(r.asks, time.Now())
		return r.list, r.err
	})
	d.changed = func(route.Route, error) {}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return d
}

func (d *discovery) now() []relay.Replica {
	lists, _ := d.listed(time.Now())
	return lists[0]
}

// Relays are asked every ten seconds, not all at the same moment.
func TestDiscoveryAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRelay{list: replicas(0, 3)}
		d := discover(t, r)
		if got := d.now(); len(got) != 3 {
			t.Fatalf("%d listed at once, want 3", len(got))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		pauses := map[time.Duration]struct{}{}
		asks := r.asked()
		for i := 1; i < len(asks); i++ {
			pause := asks[i].Sub(asks[i-1])
			pauses[pause] = struct{}{}
			if pause < findEvery*4/5 || pause > findEvery*6/5 {
				t.Errorf("asked again after %s", pause)
			}
		}
		if len(pauses) < len(asks)/2 {
			t.Errorf("%d different pauses of %d: others would ask at the same times", len(pauses), len(asks))
		}
	})
}

// What a relay has said counts for a minute while it does not answer, and no longer;
// what it says when it answers counts at once.
func TestDiscoveryKeepsWhatItKnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRelay{list: replicas(0, 3)}
		d := discover(t, r)
		r.set(nil, errors.New("connection refused"))
		time.Sleep(knownFor - time.Second)
		if got := d.now(); len(got) != 3 {
			t.Errorf("%d listed within a minute, want 3", len(got))
		}
		_, until := d.listed(time.Now())
		if want := r.asked()[0].Add(knownFor); !until.Equal(want) {
			t.Errorf("that is said to hold until %s, want %s", until, want)
		}
		time.Sleep(time.Second)
		if got := d.now(); len(got) != 0 {
			t.Errorf("%d listed after a minute without an answer", len(got))
		}
		synctest.Wait()
		r.set(replicas(5, 1), nil)
		time.Sleep(findSoonMost * 6 / 5)
		synctest.Wait()
		if got := d.now(); len(got) != 1 {
			t.Errorf("%d listed after the relay is back, want 1", len(got))
		}
		r.set(nil, nil)
		time.Sleep(findEvery * 6 / 5)
		synctest.Wait()
		if got := d.now(); len(got) != 0 {
			t.Errorf("%d listed, and the relay lists none", len(got))
		}
	})
}

// An answer is bounded, and nothing is in it twice.
func TestDiscoveryBoundsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := replicas(0, 3*maxListed)
		twice := numbered(0)
		twice.Draining = true
		list = slices.Insert(list, 1, twice, numbered(0))
		d := discover(t, &fakeRelay{list: list})
		got := d.now()
		if len(got) != maxListed-2 || got[0] != numbered(0) || got[1] != numbered(1) {
			t.Errorf("%d listed, %v first; want %d, each once", len(got), got[:2], maxListed-2)
		}
	})
}
