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
	find    findFunc
	// changed is told, without a lock, that an answer is there, or why none is; it
	// must not block.
	changed func(r route.Route, err error)

	rerouted chan struct{} // capacity 1: there are other routes

	mu        sync.Mutex
	inquiries []*inquiry // by route, in the settings' order
}

// An inquiry is the asking of one route's relay.
type inquiry struct {
	route  route.Route
	sooner chan struct{} // capacity 1: somebody misses something
	over   chan struct{} // closed when the route is listed no more

	// Guarded by the discovery's mu.
	begun bool
	listing
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
	d := &discovery{service: service, find: find, rerouted: make(chan struct{}, 1)}
	d.reroute(routes)
	return d
}

// reroute has the relays of these routes asked from now on, and no others. What those
// have said that were asked before is known at once.
func (d *discovery) reroute(routes []route.Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var now []*inquiry
	for _, r := range routes {
		same := func(q *inquiry) bool { return slices.Equal(q.route, r) }
		switch i := slices.IndexFunc(d.inquiries, same); {
		case slices.ContainsFunc(now, same):
		case i >= 0:
			now = append(now, d.inquiries[i])
		default:
			now = append(now, &inquiry{route: r, sooner: make(chan struct{}, 1), over: make(chan struct{})})
		}
	}
	for _, q := range d.inquiries {
		if !slices.Contains(now, q) {
			close(q.over)
		}
	}
	d.inquiries = now
	poke(d.rerouted)
}

// routes returns those whose relays are asked, in the settings' order.
func (d *discovery) routes() (list []route.Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.inquiries {
		list = append(list, q.route)
	}
	return list
}

// run asks all relays until ctx ends.
func (d *discovery) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		for _, q := range d.unbegun() {
			asking.Go(func() { d.follow(ctx, q) })
		}
		select {
		case <-ctx.Done():
			return
		case <-d.rerouted:
		}
	}
}

// unbegun returns the inquiries that are to begin.
func (d *discovery) unbegun() (list []*inquiry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.inquiries {
		if !q.begun {
			q.begun = true
			list = append(list, q)
		}
	}
	return list
}

// hurry has the relays asked soon.
func (d *discovery) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.inquiries {
		poke(q.sooner)
	}
}

// follow asks the relay of one route, until ctx ends or the route is listed no more.
func (d *discovery) follow(ctx context.Context, q *inquiry) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		defer cancel()
		select {
		case <-q.over:
		case <-ctx.Done():
		}
	})
	for soon := findSoon; ctx.Err() == nil; {
		began := time.Now()
		news, err := d.ask(ctx, q)
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
		case <-q.sooner:
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
func (d *discovery) ask(ctx context.Context, q *inquiry) (news bool, err error) {
	asking, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	found, err := d.find(asking, q.route, d.service)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	found = found[:min(len(found), maxListed)]
	d.mu.Lock()
	if err == nil {
		known := make(map[replicaKey]struct{}, len(found))
		found = slices.DeleteFunc(slices.Clone(found), func(r relay.Replica) bool {
			_, twice := known[keyOf(r)]
			known[keyOf(r)] = struct{}{}
			return twice
		})
		news = !sameReplicas(found, q.replicas)
		q.replicas, q.at = found, time.Now()
	}
	q.err = err
	d.mu.Unlock()
	d.changed(q.route, err)
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
	lists = make([][]relay.Replica, len(d.inquiries))
	for i, q := range d.inquiries {
		if !q.counts(now) {
			continue
		}
		lists[i] = q.replicas // which is not written any more
		if q.err != nil {
			until = earlier(until, q.at.Add(knownFor))
		}
	}
	return lists, until
}

// An answer is why the last question to a route's relay had none, or nil.
type answer struct {
	route route.Route
	err   error
}

// answers returns those of all routes, in the settings' order; complete reports whether
// every relay has been asked.
func (d *discovery) answers() (list []answer, complete bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	complete = true
	for _, q := range d.inquiries {
		list = append(list, answer{q.route, q.err})
		complete = complete && (q.err != nil || !q.at.IsZero())
	}
	return list, complete
}

// earlier returns the earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
