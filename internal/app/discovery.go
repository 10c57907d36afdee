package app

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

const (
	// findEvery is how long a relay is not asked again, give or take a fifth, so that
	// the inlets that were started together do not ask together for ever.
	findEvery = 10 * time.Second
	// findTime bounds one question, over all of a route's hops.
	findTime = 20 * time.Second
	// A relay is asked sooner by those who miss something: after findSoon, and after
	// twice as long, up to findSoonMost, each time that there was nothing new.
	findSoon     = 500 * time.Millisecond
	findSoonMost = 5 * time.Second
	// knownFor is how long what a relay has said counts while it cannot be asked.
	knownFor = time.Minute
	// maxListed bounds what counts of one relay's answer.
	maxListed = 256
)

// A findFunc asks the last hop of a route which outlets offer a service, as
// [relay.Dialer.Find] does.
type findFunc func(ctx context.Context, r route.Route, service string) ([]relay.Replica, error)

// A discovery asks relays, again and again, who offers a service, and keeps what
// they say. It is nobody's proof.
type discovery struct {
	service string
	routes  []route.Route
	find    findFunc
	// changed is told, without a lock, that an answer is there, or why none is; it
	// must not block.
	changed func(r route.Route, err error)

	sooner []chan struct{} // by route; capacity 1: somebody misses something

	mu    sync.Mutex
	lists []listing // by route
}

// A listing is what is known of one route's relay.
type listing struct {
	replicas []relay.Replica // of the last answer, each once
	at       time.Time       // of that answer; zero: there was none
	err      error           // why the last question has had none, or nil
}

// counts reports whether what the relay has said still counts.
func (l *listing) counts(now time.Time) bool {
	return !l.at.IsZero() && (l.err == nil || now.Sub(l.at) < knownFor)
}

func newDiscovery(service string, routes []route.Route, find findFunc) *discovery {
	d := &discovery{service: service, routes: routes, find: find, lists: make([]listing, len(routes))}
	for range routes {
		d.sooner = append(d.sooner, make(chan struct{}, 1))
	}
	return d
}

// run asks all relays until ctx ends.
func (d *discovery) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for i := range d.routes {
		asking.Go(func() { d.follow(ctx, i) })
	}
}

// hurry has the relays asked soon.
func (d *discovery) hurry() {
	for _, c := range d.sooner {
		poke(c)
	}
}

// follow asks the relay of one route.
func (d *discovery) follow(ctx context.Context, i int) {
	for soon := findSoon; ctx.Err() == nil; {
		began := time.Now()
		news, err := d.ask(ctx, i)
		if news {
			soon = findSoon
		}
		every := findEvery
		if err != nil {
			every = soon
		}
		every = every/5*4 + rand.N(every/5*2+1) //nolint:gosec // no secret
		t := time.NewTimer(time.Until(began.Add(every)))
		select {
		case <-ctx.Done():
		case <-t.C:
			if err == nil {
				soon = findSoon / 2 // nobody was in a hurry
			}
		case <-d.sooner[i]:
			t.Reset(time.Until(began.Add(soon)))
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		}
		t.Stop()
		soon = min(2*soon, findSoonMost)
	}
}

// ask asks once, and reports whether the answer is another than the one before, or
// why there is none.
func (d *discovery) ask(ctx context.Context, i int) (news bool, err error) {
	asking, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	found, err := d.find(asking, d.routes[i], d.service)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	found = found[:min(len(found), maxListed)]
	d.mu.Lock()
	l := &d.lists[i]
	if err == nil {
		known := make(map[replicaKey]struct{}, len(found))
		found = slices.DeleteFunc(slices.Clone(found), func(r relay.Replica) bool {
			_, twice := known[keyOf(r)]
			known[keyOf(r)] = struct{}{}
			return twice
		})
		news = !sameReplicas(found, l.replicas)
		l.replicas, l.at = found, time.Now()
	}
	l.err = err
	d.mu.Unlock()
	d.changed(d.routes[i], err)
	return news, err
}

// sameReplicas reports whether two lists have the same members, none of them twice.
func sameReplicas(a, b []relay.Replica) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r relay.Replica) bool { return !slices.Contains(b, r) })
}

// listed returns, by route, what counts now of what the relays have said, and when
// something of it ceases to count by itself: zero for never.
func (d *discovery) listed(now time.Time) (lists [][]relay.Replica, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lists = make([][]relay.Replica, len(d.lists))
	for i := range d.lists {
		l := &d.lists[i]
		if !l.counts(now) {
			continue
		}
		lists[i] = l.replicas // which is not written any more
		if l.err != nil {
			until = earlier(until, l.at.Add(knownFor))
		}
	}
	return lists, until
}

// errors returns, by route, why the last question had no answer, or nil; asked
// reports whether every relay has been asked.
func (d *discovery) errors() (errs []error, asked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked = true
	for i := range d.lists {
		l := &d.lists[i]
		errs = append(errs, l.err)
		asked = asked && (l.err != nil || !l.at.IsZero())
	}
	return errs, asked
}

// earlier returns the earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
