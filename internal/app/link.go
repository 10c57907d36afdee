package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

const (
	// attemptTime bounds one attempt to connect, over all routes: a dial and
	// the handshakes behind it have bounds of their own.
	attemptTime = 30 * time.Second
	// stagger is how long a route may take before the next one is tried beside
	// it, so that one which swallows packets does not hold up the others.
	stagger = 3 * time.Second
	// settled is how long a session has to last to count as a success. One that
	// ends sooner (the outlet takes no more, say) is followed by a longer pause
	// and another route.
	settled = time.Second
)

// newPause returns how long to wait between attempts: at most 45 ms before the
// first, about 10 s in the end, never the same for two processes.
func newPause() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     30 * time.Millisecond,
		Multiplier:          2,
		RandomizationFactor: 0.5,
		MaxInterval:         7 * time.Second,
	}
}

// A session is what a link keeps alive: a *tunnel.Session, or a test's.
type session interface {
	Run(ctx context.Context) error
	Open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, error)
	Draining() <-chan struct{}
	Close(c code.Code, reason string)
}

// A link keeps one session to an outlet alive over alternative routes, for
// ever, and hands it to whoever wants to open a stream.
type link struct {
	outlet identity.Identifier
	routes []route.Route
	// connect makes a session over one route. It ends when ctx does.
	connect func(ctx context.Context, r route.Route) (session, error)
	trace   linkTrace

	// running are the goroutines of run: those of sessions, and of attempts
	// that lost against a faster one.
	running sync.WaitGroup

	mu      sync.Mutex
	current *held              // what new streams go to; nil while there is none
	all     map[*held]struct{} // current, and those that finish their streams
	errs    []error            // by route: why it does not work, nil if not known
	changed chan struct{}      // closed, and made anew, when current changes
}

// A linkTrace is told what happens. The funcs must not block or call the link.
type linkTrace struct {
	failed   func(r route.Route, err error) // an attempt over one route
	opened   func(h *held)
	draining func(h *held)
	ended    func(h *held, err error, settled bool) // err as the session's Run returned it
}

// A held session is one that a link keeps.
type held struct {
	session session
	route   int // index into the link's routes
	since   time.Time
	done    chan struct{} // closed when the session is over

	// Guarded by the link's mu.
	uses    int           // streams
	retired bool          // takes no new streams
	idle    chan struct{} // closed when it is retired and has no streams
}

func newLink(outlet identity.Identifier, routes []route.Route) *link {
	return &link{
		outlet: outlet, routes: routes,
		all: map[*held]struct{}{}, errs: make([]error, len(routes)), changed: make(chan struct{}),
	}
}

// run keeps a session alive until ctx ends, and returns when everything it
// started has ended.
func (l *link) run(ctx context.Context) {
	defer l.running.Wait()
	pause := newPause()
	for first := 0; ctx.Err() == nil; sleep(ctx, pause.NextBackOff()) {
		h := l.dial(ctx, first)
		if h == nil {
			first = 0
			continue
		}
		l.install(ctx, h)
		select {
		case <-h.done:
		case <-h.session.Draining():
			l.retire(h)
			l.trace.draining(h)
		case <-ctx.Done():
			return
		}
		if time.Since(h.since) >= settled {
			pause.Reset()
			first = 0
		} else {
			first = (h.route + 1) % len(l.routes)
		}
	}
}

// An attempt is the result of connecting over one route.
type attempt struct {
	route   int
	session session
	err     error
}

// dial tries the routes in turn, from first on, and returns the session that
// is there first, or nil; the trace has been told why. A route that takes long
// is not waited for.
func (l *link) dial(ctx context.Context, first int) *held {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	over := make(chan struct{})
	defer close(over)
	defer cancel()
	attempts := make(chan attempt)
	started, pending := 0, 0
	var next <-chan time.Time
	start := func() {
		next = nil
		if started == len(l.routes) || ctx.Err() != nil {
			return
		}
		i := (first + started) % len(l.routes)
		started++
		pending++
		l.running.Go(func() { l.try(ctx, i, attempts, over) })
		next = time.After(stagger)
	}
	for start(); pending > 0; {
		select {
		case a := <-attempts:
			pending--
			if a.err == nil {
				return &held{session: a.session, route: a.route, since: time.Now(), done: make(chan struct{}), idle: make(chan struct{})}
			}
			if !errors.Is(ctx.Err(), context.Canceled) {
				l.failed(a)
			}
			start()
		case <-next:
			start()
		}
	}
	return nil
}

// try connects over one route and delivers the result, unless dial is over:
// then a session is ended at once.
func (l *link) try(ctx context.Context, i int, attempts chan<- attempt, over <-chan struct{}) {
	s, err := l.connect(ctx, l.routes[i])
	select {
	case attempts <- attempt{i, s, err}:
	case <-over:
		if err == nil {
			_ = s.Run(ctx) // ctx has ended, so this only closes it
		}
	}
}

func (l *link) failed(a attempt) {
	l.mu.Lock()
	l.errs[a.route] = a.err
	l.mu.Unlock()
	l.trace.failed(l.routes[a.route], a.err)
}

// install makes h what new streams go to, and runs it.
func (l *link) install(ctx context.Context, h *held) {
	l.mu.Lock()
	l.current = h
	l.all[h] = struct{}{}
	clear(l.errs)
	l.changeLocked()
	l.mu.Unlock()
	l.trace.opened(h)
	l.running.Go(func() { l.hold(ctx, h) })
}

// hold runs h's session until it is over, which it is also when it is retired
// and its last stream has ended.
func (l *link) hold(ctx context.Context, h *held) {
	l.running.Go(func() {
		select {
		case <-h.idle:
			h.session.Close(code.Draining, "all streams have moved to another channel")
		case <-h.done:
		}
	})
	err := h.session.Run(ctx)
	l.mu.Lock()
	delete(l.all, h)
	if l.current == h {
		l.current = nil
		l.errs[h.route] = err
		l.changeLocked()
	}
	l.mu.Unlock()
	close(h.done)
	l.trace.ended(h, err, time.Since(h.since) >= settled)
}

// retire keeps new streams from h, which ends when it has none.
func (l *link) retire(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.retired {
		return
	}
	h.retired = true
	if l.current == h {
		l.current = nil
		l.errs[h.route] = errors.New("the outlet is draining")
		l.changeLocked()
	}
	if h.uses == 0 {
		close(h.idle)
	}
}

func (l *link) changeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// acquire returns the session for one more stream, and waits for it until ctx
// ends. The error is a *noChannelError. The caller calls release once.
func (l *link) acquire(ctx context.Context) (*held, error) {
	for {
		l.mu.Lock()
		h, changed := l.current, l.changed
		if h != nil {
			h.uses++
			l.mu.Unlock()
			return h, nil
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &noChannelError{outlet: l.outlet, last: l.lastError()}
		}
	}
}

// release ends a use that acquire began.
func (l *link) release(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.uses--; h.uses == 0 && h.retired {
		close(h.idle)
	}
}

// ready returns nil while there is a session, else why there is none.
func (l *link) ready() error {
	l.mu.Lock()
	ok := l.current != nil
	l.mu.Unlock()
	if ok {
		return nil
	}
	return &noChannelError{outlet: l.outlet, last: l.lastError()}
}

// lastError returns why there is no session, nil if nothing has been tried to
// its end.
func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i, err := range l.errs {
		if err != nil && len(l.errs) > 1 {
			err = fmt.Errorf("route %d: %w", i+1, err)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return routeErrors(errs)
}

// routeErrors says, in one line, why none of the routes works.
type routeErrors []error

func (e routeErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e routeErrors) Unwrap() []error { return e }

// A noChannelError says that there is no session to an outlet, and why.
type noChannelError struct {
	outlet identity.Identifier
	last   error // nil while the first attempt is under way
}

func (e *noChannelError) Error() string {
	if e.last == nil {
		return fmt.Sprintf("no channel to %s: still connecting", e.outlet)
	}
	return fmt.Sprintf("no channel to %s: %v", e.outlet, e.last)
}

func (e *noChannelError) Unwrap() error { return e.last }

// count returns how many sessions there are.
func (l *link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}
