package app

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

const (
	// giveUpAfter is how long a replica may be without a path while there are others
	// that have no place.
	giveUpAfter = 5 * time.Second
	// unlistedFor is how long a replica that has been in use is kept when no relay
	// lists it and it has no path: a relay that has just started lists nobody.
	unlistedFor = time.Minute
	// asideFor is how long a replica is left alone that has not proven that it offers
	// the service.
	asideFor = time.Minute
	// asideSoon is asideFor for one whose credential counts no more, or not yet: it gets
	// another within moments, or this inlet a list.
	asideSoon = 10 * time.Second
	// maxAside bounds how many of those are remembered.
	maxAside = 4096
	// refusedFor is how long a replica that has refused a stream gets others only
	// where no other one can take them: it may have lost its target, and would have
	// the fewest streams for ever.
	refusedFor = 5 * time.Second
)

// A balancer carries the clients of a service to replicas of it: to that one, of
// those that it can reach and that have proven that they offer the service, which
// has the fewest streams of this inlet.
type balancer struct {
	service   string
	inlet     channel.Instance
	discovery *discovery
	// newLink returns what keeps a session to one replica alive. It starts nothing.
	newLink func(replicaKey) *link
	trace   balancerTrace

	waiting atomic.Int64  // clients that wait for a session, as the links have it
	kick    chan struct{} // capacity 1: arrange is to be called
	done    chan struct{} // closed by finish
	ending  sync.Once

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when a stream may find its way now
	// chosen are those that new streams go to; all are these and those that finish
	// what they have.
	chosen  map[replicaKey]*replica
	all     map[*replica]struct{}
	listed  int                      // replicas that count, of all relays
	aside   map[replicaKey]asideness // those that have proven nothing
	givenUp map[replicaKey]time.Time // since when others have had their place
	crowded bool                     // there are some without a place
}

// A balancerTrace is told what happens, without a lock. The funcs must not block.
type balancerTrace struct {
	found func(k replicaKey)             // a replica is in use for the first time
	lost  func(k replicaKey, why string) // one that was takes no new streams any more
	aside func(k replicaKey, err error)  // it has not proven that it offers the service
	asked func(r route.Route, err error) // a relay was asked
}

// A replica is one that there is, or was, a link to. What says nothing else is
// guarded by the balancer's mu.
type replica struct {
	replicaKey
	link *link

	draining bool      // as it was listed last
	proven   bool      // it has been in use
	down     time.Time // since when it has had no path; zero: it has one
	waited   time.Time // since when it has had its place without one, and others none
	unlisted time.Time // since when no relay has listed it; zero: one does
	refused  time.Time // when it last refused a stream
}

// An asideness is for how long a replica is left alone, and why.
type asideness struct {
	until time.Time
	why   error
}

func newBalancer(service string, routes []route.Route, inlet channel.Instance, find findFunc) *balancer {
	b := &balancer{
		service: service, inlet: inlet, discovery: newDiscovery(service, routes, find),
		kick: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}), chosen: map[replicaKey]*replica{}, all: map[*replica]struct{}{},
		aside: map[replicaKey]asideness{}, givenUp: map[replicaKey]time.Time{},
	}
	b.discovery.changed = func(r route.Route, err error) {
		b.trace.asked(r, err)
		b.notify()
	}
	return b
}

// run looks for replicas and keeps links to them until ctx ends or finish is called,
// and returns when everything it started has ended.
func (b *balancer) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	looking, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { b.discovery.run(looking) })
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.done:
			b.leaveAll()
			return
		case <-b.kick:
		case <-t.C:
		}
		started, next := b.arrange(time.Now())
		for _, r := range started {
			running.Go(func() {
				r.link.run(ctx)
				b.forget(r)
			})
		}
		t.Stop()
		if !next.IsZero() {
			t.Reset(time.Until(next))
		}
	}
}

// finish has run return when the streams that there are have ended.
func (b *balancer) finish() { b.ending.Do(func() { close(b.done) }) }

// leaveAll has no replica take new streams any more.
func (b *balancer) leaveAll() {
	b.mu.Lock()
	for _, r := range b.chosen {
		r.link.finish()
	}
	clear(b.chosen)
	b.mu.Unlock()
	b.notify()
}

// reroute has the relays of these routes asked, and outlets reached over them, from
// now on.
func (b *balancer) reroute(routes []route.Route) {
	b.mu.Lock()
	b.discovery.reroute(routes) // with the lock, so that a link that is made now has these, too
	b.mu.Unlock()
	for _, l := range b.links() {
		l.reroute(routes)
	}
	poke(b.kick)
}

// adopt makes a new link one of several that clients choose from.
func (b *balancer) adopt(r *replica) {
	l, k := r.link, r.replicaKey
	l.notify, l.siblings, l.waiting = b.notify, b.links, &b.waiting
	l.trace.unreachable = func(err error) { b.unreachable(k, err) }
	opened := l.trace.opened
	l.trace.opened = func(h *held) {
		opened(h)
		for _, other := range b.links() {
			other.wake() // the process whose place this one has taken may be among them
		}
	}
}

// notify says that there may be something to arrange, or a way for a stream.
func (b *balancer) notify() {
	b.mu.Lock()
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	poke(b.kick)
}

// forget takes out a replica whose link has ended.
func (b *balancer) forget(r *replica) {
	b.mu.Lock()
	delete(b.all, r)
	b.mu.Unlock()
	poke(b.kick)
}

// links returns all links.
func (b *balancer) links() []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]*link, 0, len(b.all))
	for r := range b.all {
		list = append(list, r.link)
	}
	return list
}

// open opens a stream at one replica after the other, until one has accepted it or
// ctx ends. A refusal is final when all others that can be reached have refused,
// too. The client's bytes wait for the answer: what one replica has seen of them
// cannot be sent to another.
func (b *balancer) open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, *held, error) {
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	tried := map[replicaKey]struct{}{}
	var refusal error
	for {
		r, h, changed := b.take(tried)
		if h == nil && refusal != nil {
			return nil, nil, refusal
		}
		if h == nil {
			b.hurry()
			select {
			case <-changed:
				continue
			case <-b.done:
				return nil, nil, errFinished
			case <-ctx.Done():
				return nil, nil, b.noChannel()
			}
		}
		trace.From(ctx).Event(trace.EventChannel)
		st, err := h.session.OpenAnswered(ctx, o)
		if err == nil {
			return st, h, nil
		}
		h.release()
		passedOver(ctx, r, err)
		err = &replicaError{outlet: r.outlet, err: err}
		var refused *tunnel.RefusedError
		switch {
		case errors.As(err, &refused):
			tried[r.replicaKey] = struct{}{}
			refusal = err
			b.setRefused(r)
		case ctx.Err() != nil:
			b.setRefused(r) // or the next client waits for its answer, too
			return nil, nil, err
		case spent(err):
			r.link.retire(h, err)
		case errors.Is(err, tunnel.ErrDraining), errors.Is(err, errPathLost):
			// Which take sees, too.
		default:
			return nil, nil, err
		}
	}
}

// take takes, for one more stream, a session of the replica that is to have it, but
// of none of those that were tried. Without one h is nil; changed is closed when
// there may be one.
func (b *balancer) take(tried map[replicaKey]struct{}) (r *replica, h *held, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	type preference struct {
		late    bool // it is going away, or has just refused a stream
		streams int
	}
	var best preference
	var equal []*replica // that are as good
	for k, r := range b.chosen {
		_, was := tried[k]
		h, streams := r.link.available()
		if was || h == nil {
			continue
		}
		p := preference{r.draining || time.Since(r.refused) < refusedFor, streams}
		switch {
		case len(equal) == 0, best.late && !p.late, best.late == p.late && p.streams < best.streams:
			best, equal = p, append(equal[:0], r)
		case p == best:
			equal = append(equal, r)
		}
	}
	if len(equal) == 0 {
		return nil, nil, b.changed
	}
	r = equal[rand.N(len(equal))] //nolint:gosec // no secret
	return r, r.link.take(), b.changed
}

// setRefused notes that a replica has refused a stream.
func (b *balancer) setRefused(r *replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.refused = time.Now()
}

// count returns how many replicas are listed, and how many can take a stream.
func (b *balancer) count() (known, inUse int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.chosen {
		if h, _ := r.link.available(); h != nil {
			inUse++
		}
	}
	return b.listed, inUse
}

// hurry has relays asked soon, and links made: a client waits.
func (b *balancer) hurry() {
	for _, l := range b.links() {
		poke(l.hurry)
	}
	b.discovery.hurry()
}

// ready returns nil while a replica can take a stream, else why none can.
func (b *balancer) ready() error {
	b.mu.Lock()
	rs := slices.Collect(maps.Values(b.chosen))
	b.mu.Unlock()
	for _, r := range rs {
		if h, _ := r.link.available(); h != nil {
			return nil
		}
	}
	return b.noChannel()
}

// unreachable notes why no route has led to a replica. Only what its outlet itself
// has proven to be is a reason to leave it alone: a relay could say the rest of
// anybody.
func (b *balancer) unreachable(k replicaKey, err error) {
	var unproven *unprovenError
	if !errors.As(err, &unproven) {
		return
	}
	b.mu.Lock()
	for old := range b.aside { // any of them, where there are too many
		if len(b.aside) < maxAside {
			break
		}
		delete(b.aside, old)
	}
	b.aside[k] = asideness{time.Now().Add(unproven.mends()), unproven}
	b.mu.Unlock()
	b.trace.aside(k, unproven)
	b.notify()
}

// mends returns after what time a peer may prove what it has not: soon, where it has
// what was worth something, or will be, as its authority says.
func (e *unprovenError) mends() time.Duration {
	switch e.peer.Code {
	case code.CredentialExpired, code.CredentialRevoked, code.NotYetValid, code.SignerReplaced, code.RevocationsOverdue:
		return asideSoon
	}
	return asideFor
}

// errPathLost says that a replica's channel has lost its path while a stream was
// being opened.
var errPathLost = errors.New("the path was lost while the stream was being opened")

// A replicaError is what went wrong at one replica.
type replicaError struct {
	outlet identity.Identifier
	err    error
}

func (e *replicaError) Error() string { return "outlet " + e.outlet.String() + ": " + e.err.Error() }
func (e *replicaError) Unwrap() error { return e.err }

// noChannel says why there is no session for a stream.
func (b *balancer) noChannel() error {
	return &noChannelError{to: "any outlet of " + b.service, last: b.lastError()}
}

// maxReasons bounds how many replicas lastError speaks of.
const maxReasons = 4

// errUnlisted says that relays were asked in vain.
var errUnlisted = errors.New("no relay lists an outlet whose credential says that it offers the service")

// lastError returns why no replica can be reached, nil if that is not known yet.
func (b *balancer) lastError() error {
	var reasons routeErrors
	asked, complete := b.discovery.answers()
	for i, a := range asked {
		if a.err != nil {
			reasons = append(reasons, routeError(i, len(asked), a.err))
		}
	}
	b.mu.Lock()
	rs, listed := slices.Collect(maps.Values(b.chosen)), b.listed
	for k, a := range b.aside {
		if len(reasons) < len(asked)+maxReasons {
			reasons = append(reasons, &replicaError{k.outlet, a.why})
		}
	}
	b.mu.Unlock()
	for _, r := range rs {
		if err := r.link.lastError(); err != nil && len(reasons) < len(asked)+maxReasons {
			reasons = append(reasons, &replicaError{r.outlet, err})
		}
	}
	switch {
	case len(reasons) > 0:
		return reasons
	case complete && listed == 0:
		return errUnlisted
	}
	return nil
}
