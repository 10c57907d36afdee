package app

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// routeNumbered returns a route of its own for each number.
func routeNumbered(n int) route.Route {
	return route.Route{{Host: "relay", Port: uint16(1 + n), Identifier: identity.Identifier{byte(n + 1)}}}
}

// Whatever is listed after what: a number means the same route for as long as anybody
// can speak of it, states are those of the listed ones in their order, and what nobody
// can speak of is not kept.
func TestLinkRoutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		draw := func() (list []route.Route) {
			for _, n := range rapid.SliceOfN(rapid.IntRange(0, 7), 1, 6).Draw(t, "routes") {
				list = append(list, routeNumbered(n))
			}
			return list
		}
		r := newLinkRoutes(draw())
		means := map[int]route.Route{} // of numbers that were listed
		seen := map[int]time.Time{}    // when a number was last listed
		failed := map[int]error{}      // by number
		inUse := -1                    // the number of a session's path
		note := func(numbers ...int) {
			for _, n := range numbers {
				if of := r.of(n); means[n] != nil && !slices.Equal(means[n], of) {
					t.Fatalf("number %d meant %s and means %s", n, means[n], of)
				}
				means[n], seen[n] = r.of(n), now
			}
		}
		note(r.numbers()...)
		t.Repeat(map[string]func(*rapid.T){
			"list": func(t *rapid.T) {
				list := draw()
				before := r.numbers()
				var used []int
				if inUse >= 0 {
					used = []int{inUse}
				}
				changed := r.list(list, used, now)
				is := r.numbers()
				if changed == slices.Equal(before, is) {
					t.Fatalf("changed %v: %v, then %v", changed, before, is)
				}
				note(slices.Concat(before, is)...)
				var want, got []route.Route
				for _, l := range list {
					if !slices.ContainsFunc(want, func(w route.Route) bool { return slices.Equal(w, l) }) {
						want = append(want, l)
					}
				}
				for _, n := range is {
					got = append(got, r.of(n))
				}
				if !slices.EqualFunc(got, want, func(a, b route.Route) bool { return slices.Equal(a, b) }) {
					t.Fatalf("listed %v, want %v", got, want)
				}
			},
			"use": func(t *rapid.T) {
				inUse = rapid.SampledFrom(r.numbers()).Draw(t, "used")
			},
			"fail": func(t *rapid.T) {
				n := rapid.SampledFrom(r.numbers()).Draw(t, "failed")
				failed[n] = errors.New("failed")
				r.set(n, failed[n])
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
			},
			"": func(t *rapid.T) {
				if inUse >= 0 && !slices.Equal(r.of(inUse), means[inUse]) {
					t.Fatalf("number %d, in use, means %s, not %s", inUse, r.of(inUse), means[inUse])
				}
				for n, at := range seen {
					if now.Sub(at) < unlistedRouteFor && !slices.Equal(r.of(n), means[n]) {
						t.Fatalf("number %d, spoken of %s ago, means %s, not %s", n, now.Sub(at), r.of(n), means[n])
					}
				}
				for i, s := range r.states() {
					if s.number != r.numbers()[i] || !errors.Is(s.err, failed[s.number]) {
						t.Fatalf("state %d is %+v", i, s)
					}
					if place := r.behind(s.number); place != (i+1)%len(r.numbers()) {
						t.Fatalf("behind place %d of %d comes %d", i, len(r.numbers()), place)
					}
				}
				if r.behind(-1) != 0 {
					t.Fatal("behind a route that is not listed comes not the first")
				}
			},
		})
	})
}

// Routes that are listed no more do not pile up.
func TestLinkRoutesAreBounded(t *testing.T) {
	now := time.Now()
	r := newLinkRoutes([]route.Route{routeNumbered(0)})
	for n := range 200 {
		r.list([]route.Route{routeNumbered(n)}, []int{0}, now)
		now = now.Add(30 * time.Minute)
	}
	if n := len(r.known); n > 5 {
		t.Errorf("%d routes are remembered", n)
	}
	if got := r.of(0); !slices.Equal(got, routeNumbered(0)) {
		t.Errorf("the route of a path that is in use is forgotten: %v", got)
	}
	if got := r.of(10_000); got != nil {
		t.Errorf("a number that there never was means %s", got)
	}
}

// A link that gets other routes tells its sessions, once for each change.
func TestLinkReroutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 2)
		start(t, l)
		s := l.session(t, time.Second)
		before := l.routes.states()
		l.reroute([]route.Route{before[0].Route, before[1].Route}) // the same
		l.reroute([]route.Route{before[1].Route})
		l.reroute([]route.Route{before[1].Route})
		if s.rerouted != 1 {
			t.Errorf("the session was told %d times of one change", s.rerouted)
		}
		if got := l.status().Routes; len(got) != 1 || got[0].Route != before[1].String() {
			t.Errorf("the status has the routes %v", got)
		}
	})
}

// A finished link refuses those who wait and those who come, so that they can go
// elsewhere, and not only when their time is over.
func TestFinishedLinkKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return errors.New("connection refused") }}
		l := n.link(t, 1)
		start(t, l)
		waited := make(chan error, 1)
		go func() {
			_, err := l.acquire(t.Context())
			waited <- err
		}()
		time.Sleep(time.Minute)
		l.finish()
		if err := <-waited; !errors.Is(err, errFinished) {
			t.Errorf("who waited got %v", err)
		}
		if _, err := l.acquire(t.Context()); !errors.Is(err, errFinished) {
			t.Errorf("who came got %v", err)
		}
	})
}

// A balancer that gets other routes asks their relays, keeps what it knows from those
// that are still listed, and forgets what the others have said; its links get them, too.
func TestBalancerReroutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newIdleFleet(t, replicas(0, 2), replicas(10, 2), replicas(20, 2))
		all := f.b.discovery.routes()
		f.b.discovery.reroute(all[:2])
		f.start()
		synctest.Wait()
		if known, used := f.b.count(); known != 4 || used != 4 {
			t.Fatalf("%d known, %d in use; want 4 of two relays", known, used)
		}
		asked := func() []int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Clone(f.asks)
		}
		before := asked()
		f.b.reroute([]route.Route{all[2], all[1]})
		synctest.Wait()
		if now := asked(); now[2] != before[2]+1 || now[1] != before[1] {
			t.Errorf("asked %v, then %v: want the new relay at once, and not the one that is known", before, now)
		}
		if known, _ := f.b.count(); known != 4 {
			t.Errorf("%d known, want those of the two relays", known)
		}
		for _, l := range f.b.links() {
			if l.outlet == numbered(0).Outlet && !slices.Equal(l.routes.states()[0].Route, all[2]) {
				t.Errorf("a link has the routes %v", l.routes.states())
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if now := asked(); now[0] != before[0] {
			t.Errorf("the relay that is listed no more was asked %d times", now[0]-before[0])
		}
		// Those that it alone has listed are in use as long as they work.
		if got := f.inUse(); got != 6 {
			t.Errorf("%d in use, want 6", got)
		}
	})
}

// A finished balancer lets its streams end, and then runs no more.
func TestBalancerFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newIdleFleet(t, replicas(0, 2))
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.b.run(t.Context())
		}()
		synctest.Wait()
		_, h := f.mustOpen(time.Second)
		f.b.finish()
		f.b.finish()
		synctest.Wait()
		if _, _, err := f.open(time.Second); !errors.Is(err, errFinished) {
			t.Errorf("who comes afterwards gets %v", err)
		}
		if n := len(f.b.links()); n != 1 {
			t.Errorf("%d links, want the one with a stream", n)
		}
		time.Sleep(time.Hour)
		select {
		case <-done:
			t.Fatal("it has ended before its last stream")
		default:
		}
		h.release()
		<-done
		if n := len(f.b.links()); n != 0 {
			t.Errorf("%d links are left", n)
		}
	})
}
