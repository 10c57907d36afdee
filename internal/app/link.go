package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

const (
	// attemptTime bounds one attempt to connect, over all routes: a dial and
	// the handshakes behind it have bounds of their own.
	attemptTime = 30 * time.Second
	// settled is how long a session has to last to count as a success. One that
	// ends sooner (the outlet takes no more, say) is followed by a longer pause
	// and another route.
	settled = time.Second
	// pathPatience is how long a session may be without a path before another one
	// is made beside it for new streams: the process that holds it may be gone,
	// while another stands ready.
	pathPatience = time.Second
	// hurried is the longest pause between attempts while a client waits.
	hurried = 250 * time.Millisecond
)

// newPause returns how long to wait between attempts: at most 45 ms before the
// first, up to 3 s in the end, never the same for two processes.
func newPause() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     30 * time.Millisecond,
		Multiplier:          2,
		RandomizationFactor: 0.5,
		MaxInterval:         2 * time.Second,
	}
}

// A session is what a link keeps alive: a *tunnel.Session, or a test's.
type session interface {
	Run(ctx context.Context) error
	Open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, error)
	// OpenAnswered is Open that waits until the peer has accepted the stream. It fails
	// with errPathLost as soon as the session has no path.
	OpenAnswered(ctx context.Context, o tunnel.Open) (*tunnel.Stream, error)
	Draining() <-chan struct{}
	// Lost returns a channel that is closed when the session is over, which Err
	// gives the reason for, though Run may still be saying goodbye.
	Lost() <-chan struct{}
	Err() error
	Close(c code.Code, reason string)
	// Fail ends the session without a word to the peer, which is no more.
	Fail(c code.Code, err error)
	Peer() channel.Peer
	// Path returns nil while the session has a path, else why it has none, the
	// route of its path or its last one, and what is closed when that may have
	// changed.
	Path() (route int, changed <-chan struct{}, err error)
	// Reroute says that other routes are listed now, or in another order.
	Reroute()
}

// A link keeps one session to an outlet alive over alternative routes, for
// ever, and hands it to whoever wants to open a stream.
type link struct {
	outlet   identity.Identifier
	instance *channel.Instance // nil: any
	service  string            // that the outlet has to prove; "": none
	routes   *linkRoutes
	// connect makes a session over the first route that works, beginning with the one
	// at place first of those that are listed, and calls failed for those that do not.
	connect func(ctx context.Context, first int) (session, error)
	trace   linkTrace

	// admit says whether the outlet, as its last handshake has proven it, is still
	// whom this link leads to, beside its identifier; nil: that is all there is.
	admit func(channel.Peer) error
	// notify is told, without mu, that what available returns may have changed; nil:
	// nobody asks. It must not block or call the link.
	notify func()
	// siblings are the links, this one among them, to processes of which one may have
	// taken the place of another; nil: it has none.
	siblings func() []*link

	running sync.WaitGroup // the goroutines of run
	waiting *atomic.Int64  // clients that wait for a session
	hurry   chan struct{}  // capacity 1: another one has come
	done    chan struct{}  // closed by finish
	ending  sync.Once

	mu      sync.Mutex
	current *held              // what new streams go to; nil while there is none
	all     map[*held]struct{} // current, and those that finish their streams
	ended   error              // why the last session that was current is so no more
	changed chan struct{}      // closed, and made anew, when current changes
}

// A linkTrace is told what happens. The funcs must not block or call the link.
type linkTrace struct {
	failed func(r route.Route, err error) // an attempt over one route
	// unreachable is told why no route has led to a session; nil: nobody is.
	unreachable func(err error)
	replaced    func(h *held) // another session is used for new streams, since h has no path
	opened      func(h *held)
	draining    func(h *held)
	ended       func(h *held, err error, settled bool) // err as the session's Run returned it
}

func newLink(outlet identity.Identifier, routes []route.Route) *link {
	return &link{
		outlet: outlet, routes: newLinkRoutes(routes), waiting: new(atomic.Int64), done: make(chan struct{}),
		all: map[*held]struct{}{}, changed: make(chan struct{}), hurry: make(chan struct{}, 1),
	}
}

// finish has run return when the sessions that there are have ended.
func (l *link) finish() { l.ending.Do(func() { close(l.done) }) }

// reroute has the link use these routes from now on, the best first. Sessions whose
// path leads over another one get another path first.
func (l *link) reroute(routes []route.Route) {
	sessions := l.sessions()
	var used []int
	for _, h := range sessions {
		n, _, _ := h.session.Path()
		used = append(used, n)
	}
	if !l.routes.list(routes, used, time.Now()) {
		return
	}
	for _, h := range sessions {
		h.session.Reroute()
	}
	poke(l.hurry)
}

// errFinished is why a session takes no new streams that others take now, and a link
// that has none.
var errFinished = errors.New("new streams go elsewhere")

// run keeps a session alive until ctx ends or finish is called, and returns when
// everything it started has ended.
func (l *link) run(ctx context.Context) {
	defer l.running.Wait()
	making, cancel := context.WithCancel(ctx)
	defer cancel()
	dialing, giveUp := context.WithCancel(ctx)
	defer giveUp()
	l.running.Go(func() {
		select {
		case <-l.done:
			cancel()
			// What the outlet has taken already is closed with a word: it would keep a
			// channel that is only given up for the grace time.
			wait.Sleep(dialing, closeTime)
			giveUp()
		case <-dialing.Done():
		}
	})
	l.keep(ctx, making, dialing)
	giveUp()
	if ctx.Err() != nil {
		return // which ends them
	}
	for _, h := range l.sessions() {
		l.retire(h, errFinished)
	}
}

// keep makes one session after the other, which ctx ends, until making ends. An attempt
// that is under way then may go on until dialing ends.
func (l *link) keep(ctx, making, dialing context.Context) {
	pause := newPause()
	for first := 0; making.Err() == nil; l.rest(making, pause.NextBackOff()) {
		h := l.dial(dialing, first)
		if h == nil {
			first = 0
			continue
		}
		l.install(ctx, h)
		h = l.watch(ctx, making, h)
		if time.Since(h.since) >= settled {
			pause.Reset()
			first = 0
		} else {
			route, _, _ := h.session.Path()
			first = l.routes.behind(route)
		}
	}
}

// rest waits for d between two attempts, for no longer than hurried while a
// client waits for the outcome.
func (l *link) rest(ctx context.Context, d time.Duration) {
	began := time.Now()
	if l.waiting.Load() > 0 {
		d = min(d, hurried)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-l.hurry:
			t.Reset(min(d, hurried) - time.Since(began))
		}
	}
}

// dial makes a session, or returns nil; the trace has been told why.
func (l *link) dial(ctx context.Context, first int) *held {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	s, err := l.connect(ctx, first)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			if l.trace.unreachable != nil {
				l.trace.unreachable(err)
			}
		}
		return nil
	}
	return &held{link: l, session: s, since: time.Now(), retired: make(chan struct{}), idle: make(chan struct{}), done: make(chan struct{})}
}

// watch returns when h, or the session that has taken its place, is of no use
// for new streams any more, or making ends.
func (l *link) watch(ctx, making context.Context, h *held) *held {
	down := time.NewTimer(0)
	defer down.Stop()
	for {
		_, changed, err := h.session.Path()
		l.tell()
		down.Stop()
		if err != nil {
			down.Reset(pathPatience)
		}
		select {
		case <-h.retired:
			return h
		case <-making.Done():
			return h
		case <-h.session.Draining():
			l.retire(h, errors.New("the outlet is draining"))
			l.trace.draining(h)
			return h
		case <-changed:
		case <-down.C:
			if next := l.replace(making, h); next != nil {
				l.install(ctx, next)
				l.retire(h, err)
				l.trace.replaced(h)
				h = next
			}
		}
	}
}

// replace makes another session while h has no path. It returns nil when h has
// one again, or is retired.
func (l *link) replace(ctx context.Context, h *held) *held {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer cancel()
		h.awaitPath(ctx)
	})
	defer watching.Wait()
	defer cancel()
	for pause := newPause(); ctx.Err() == nil; l.rest(ctx, pause.NextBackOff()) {
		next := l.dial(ctx, 0)
		if next == nil {
			continue
		}
		if _, _, err := h.session.Path(); err == nil {
			l.spare(next)
			return nil
		}
		return next
	}
	return nil
}

// spare ends a session that nobody has used and nobody needs.
func (l *link) spare(h *held) {
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the channel before it has a path again"))
	l.running.Go(func() { _ = h.session.Run(ended) }) // which only closes it
}

// failed is told of an attempt over a route, for a session or for another path
// of one, that did not work.
func (l *link) failed(route int, err error) {
	l.routes.set(route, err)
	l.trace.failed(l.routes.of(route), err)
}

// worked is told of a route that has become a path.
func (l *link) worked(route int) { l.routes.set(route, nil) }

// install makes h what new streams go to, and runs it.
func (l *link) install(ctx context.Context, h *held) {
	l.mu.Lock()
	l.current = h
	l.all[h] = struct{}{}
	l.changeLocked()
	l.mu.Unlock()
	l.tell()
	l.trace.opened(h)
	l.running.Go(func() { l.hold(ctx, h) })
}

// tell tells whoever asks what is available that it may have changed.
func (l *link) tell() {
	if l.notify != nil {
		l.notify()
	}
}

// wake has everybody look again who waits for what is said of other sessions.
func (l *link) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeLocked()
}

func (l *link) changeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// ready returns nil while there is a session with a path, else why there is
// none.
func (l *link) ready() error {
	l.mu.Lock()
	h := l.current
	l.mu.Unlock()
	if h != nil {
		if _, _, err := h.session.Path(); err == nil {
			return nil
		}
	}
	return l.noChannel()
}

// lastError returns why there is no session with a path, nil if nothing has
// been tried to its end.
func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	routes := l.routes.states()
	for i, r := range routes {
		if r.err != nil {
			errs = append(errs, routeError(i, len(routes), r.err))
		}
	}
	if len(errs) > 0 {
		return routeErrors(errs)
	}
	if l.current == nil {
		return l.ended
	}
	if _, _, err := l.current.session.Path(); err != nil {
		return fmt.Errorf("the last path ended: %w", err)
	}
	return nil
}

// sessions returns all sessions.
func (l *link) sessions() []*held {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*held, 0, len(l.all))
	for h := range l.all {
		list = append(list, h)
	}
	return list
}

// sessionsOf returns all sessions of some links.
func sessionsOf(links []*link) (list []*held) {
	for _, l := range links {
		list = append(list, l.sessions()...)
	}
	return list
}

// count returns how many sessions there are.
func (l *link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}
