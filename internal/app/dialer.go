package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// maxDialed bounds the services that a dialer has a way to at a time. The one that was
// not used for longest gives way.
const maxDialed = 256

// A WayFunc says where a service is to be had: by whom, and over what. Its error is for
// the program.
type WayFunc func(service string) (config.InletService, error)

// A Dialer is an inlet without listeners: its program opens the streams. It is made by
// [NewDialer], starts with the first [Dialer.Dial], and ends with [Dialer.Shutdown].
type Dialer struct {
	*Inlet
	way WayFunc
	// Ended is called when nothing runs any more; nil for nothing. Set before Dial.
	Ended func()

	life     context.Context // streams can be opened; its cause says why not any more
	refuse   context.CancelCauseFunc
	run      context.Context // the work
	stop     context.CancelFunc
	starting sync.Once
	done     chan struct{} // closed when nothing runs any more
	err      error         // why it has ended by itself; read after done

	living sync.WaitGroup // Dials under way, and streams that are open

	mu       sync.Mutex
	closed   bool // nothing is dialled any more
	cutting  bool // what is open has been cut, or is about to be
	cuts     atomic.Int64
	services map[string]*dialed
	open     map[*Carried]struct{}
}

// A dialed service is one that was dialled. What says nothing else is guarded by the
// dialer's mu.
type dialed struct {
	*inletService
	uses   int       // Dials under way, and streams that are open
	last   time.Time // when the last of them ended
	denied *denials  // nil: there is no single outlet that could
}

// NewDialer checks the settings, of which Services are not looked at, and reads the
// identity. It starts nothing.
func NewDialer(cfg *config.Inlet, way WayFunc, o *obs.Obs) (*Dialer, error) {
	in, err := newInlet(cfg, o)
	if err != nil {
		return nil, err
	}
	d := &Dialer{Inlet: in, way: way, done: make(chan struct{}), services: map[string]*dialed{}, open: map[*Carried]struct{}{}}
	d.life, d.refuse = context.WithCancelCause(context.Background())
	d.run, d.stop = context.WithCancel(context.Background())
	in.base.work = d.work
	return d, nil
}

// Trusts reports whether anybody's credentials count, so that a service can be had by
// its name alone.
func (d *Dialer) Trusts() bool { return d.trust.enabled.Load() }

// start has the work begin, once.
func (d *Dialer) start() {
	d.starting.Do(func() {
		go func() {
			defer close(d.done) // which Shutdown waits for
			d.err = d.embedded(d.run, func(err error) { d.refuse(err) })
			if d.Ended != nil {
				d.Ended()
			}
		}()
	})
}

// Shutdown has no more streams be opened, waits until the program has done with those
// that are open, cuts them when ctx ends, which is its error then, and returns when
// nothing runs any more.
func (d *Dialer) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.refuse(stoppedError("the dialer"))
	d.start() // what the constructor has opened is closed by the work's end
	var err error
	select {
	case <-ended(&d.living):
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-d.done:
	}
	d.stop()
	<-d.done
	if d.cuts.Load() == 0 {
		err = nil // ctx was of no matter
	}
	return errors.Join(err, d.err)
}

// Close is Shutdown that waits for nobody. Its error is why the dialer has ended before,
// if it has.
func (d *Dialer) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = d.Shutdown(ctx) // which says, too, that its context has ended
	return d.err
}

// work keeps the ways until ctx ends. Then it cuts the streams that are left.
func (d *Dialer) work(ctx context.Context) error {
	linkCtx, stopLinks := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopLinks(errShutdown)
	r := &inletRun{in: d.Inlet, linkCtx: linkCtx}
	d.beginWays(r)
	<-ctx.Done()
	d.settle()
	d.refuse(stoppedError("the dialer")) // unless there is another reason already
	d.mu.Lock()
	d.closed, d.cutting = true, true
	left := make([]*Carried, 0, len(d.open))
	for c := range d.open {
		left = append(left, c)
	}
	d.mu.Unlock()
	cut := func(leaving bool) {
		for _, c := range left {
			if c.leaving.Load() == leaving {
				d.cuts.Add(1)
				c.cut(code.Shutdown, errShutdown)
			}
		}
	}
	cut(false)
	if gone := ended(&d.living); !waitFor(gone, lastWait) {
		cut(true)
		<-gone
	}
	stopLinks(errShutdown)
	r.links.Wait()
	return nil
}

// beginWays starts what leads to services.
func (d *Dialer) beginWays(r *inletRun) {
	o := &d.offering
	o.mu.Lock()
	defer o.mu.Unlock()
	o.run = r
	for _, u := range o.upstreams {
		r.keep(u)
	}
	close(o.begun)
}

// Dial opens a stream to a service, and returns when the outlet has accepted it, at the
// latest after the connect time-out. client is what the outlet is told of who calls.
// The error is a *Failure.
func (d *Dialer) Dial(ctx context.Context, service, client string) (*Carried, *Failure) {
	s, err := d.enter(service)
	if err != nil {
		return nil, err
	}
	live := &liveStream{service: service, client: client, since: time.Now(), peer: s.Outlet}
	d.carried.Add(1)
	d.streams.table.begin(live, s.metrics.count)
	c, e, err := d.connect(ctx, s, live)
	if err != nil {
		d.ended(s, live, e)
	}
	return c, err
}

// connect is Dial between the entering of the stream and its end.
func (d *Dialer) connect(ctx context.Context, s *dialed, live *liveStream) (*Carried, streamEnd, *Failure) {
	fail := func(label, reason string, err error) (*Carried, streamEnd, *Failure) {
		e := streamEnd{label: label, reason: reason, atInlet: true}
		d.auditUnopened(s.inletService, outletOf(err, s.Outlet), live.client, e)
		return nil, e, failure(&e, err, ctx.Err())
	}
	if err := d.audit.Ready(); err != nil { // before the outlet hears of it
		return fail(code.AuditFailed.String(), err.Error(), err)
	}
	st, h, opening, err := d.openAnswered(ctx, s, live)
	if err != nil {
		e, err := d.unopened(ctx, opening, err)
		return fail(e.label, e.reason, err)
	}
	s.metrics.waited(live.since)
	ch := h.session.(*lasting).ch
	d.streams.table.carries(live, ch, st.ID(), st)
	a, err := d.auditOpened(s.inletService, live.client, st, h)
	if err != nil {
		_ = st.Reset(code.AuditFailed)
		h.release()
		e := streamEnd{label: code.AuditFailed.String(), reason: err.Error()}
		return nil, e, failure(&e, err, nil)
	}
	st.HandOff()
	c := &Carried{Stream: st, Service: s.Service, peer: h.session.Peer, trust: d.trust}
	c.settled = func(err error) {
		e := c.end(err)
		e.atInlet = true
		d.auditClosed(a, e)
		h.release()
		d.mu.Lock()
		delete(d.open, c)
		d.mu.Unlock()
		d.ended(s, live, e)
	}
	d.mu.Lock()
	d.open[c] = struct{}{}
	late := d.cutting
	d.mu.Unlock()
	// Whoever has the stream may be busy elsewhere when it is lost. What it holds here is
	// given back then; living waits for that.
	st.OnEnd(func(err error) { go c.Settle(err) })
	if late { // the work has looked before
		c.cut(code.Shutdown, errShutdown)
	}
	return c, streamEnd{}, nil
}

// openAnswered opens a stream and waits for the outlet's answer. The context that it
// returns says by its cause why it has not waited any longer.
func (d *Dialer) openAnswered(ctx context.Context, s *dialed, live *liveStream) (*tunnel.Stream, *held, context.Context, error) {
	d.start()
	opening, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.life, func() { cancel(context.Cause(d.life)) })()
	defer s.denied.watch(cancel)()
	timed, stop := context.WithTimeout(opening, time.Duration(d.connectTimeout.Load()))
	defer stop()
	for {
		st, h, err := d.Inlet.open(timed, s.inletService, tunnel.Open{Service: s.Service, ClientAddress: live.client})
		if err != nil {
			return nil, nil, opening, err
		}
		err = st.Answered(timed)
		if err == nil {
			return st, h, opening, nil
		}
		_ = st.Reset(code.Aborted) // it is over either way
		h.release()
		if !h.leaves(timed, err) {
			return nil, nil, opening, &replicaError{outlet: h.link.outlet, err: err}
		}
	}
}

// leaves reports whether a stream was refused since the outlet goes away, and waits until
// others are opened elsewhere.
func (h *held) leaves(ctx context.Context, err error) bool {
	var refused *tunnel.RefusedError
	if !errors.As(err, &refused) || refused.Code != code.Draining {
		return false
	}
	select {
	case <-h.retired:
		return true
	case <-ctx.Done():
		return false
	}
}

// unopened says why a stream could not be opened for a program whose context is ctx.
func (d *Dialer) unopened(ctx, opening context.Context, err error) (streamEnd, error) {
	e := openEnd(opening, err)
	var denied *deniedError
	switch stopped := context.Cause(d.life); {
	case errors.As(err, &denied):
		e.label = label(denied, code.Unreachable)
	case stopped != nil:
		e.label, e.reason = memberLabel(stopped), stopped.Error()
		err = errors.Join(stopped, err)
	case errors.Is(ctx.Err(), context.Canceled):
		e.label, e.reason = remedy.Cancelled, "the dial was cancelled: "+e.reason
	}
	return e, err
}

// ended counts and logs the end of a stream, whether or not it has been open.
func (d *Dialer) ended(s *dialed, live *liveStream, e streamEnd) {
	d.streams.table.end(live)
	d.carried.Add(-1)
	s.metrics.ended(e)
	peer := live.peer
	d.logEnd(e, time.Since(live.since), &streamName{s.Service, peer, live.client})
	d.mu.Lock()
	s.uses--
	s.last = time.Now()
	d.mu.Unlock()
	d.living.Done()
}

// enter returns the service of that name, for one stream, whose end ended is told of.
func (d *Dialer) enter(name string) (*dialed, *Failure) {
	refused := func(c code.Code, err error) *Failure {
		return &Failure{Code: c, Reason: code.Printable(err.Error()), Err: err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		why := cmp.Or(context.Cause(d.life), error(stoppedError("the dialer")))
		return nil, refused(codeOf(memberLabel(why)), why)
	}
	s := d.services[name]
	if s == nil {
		c, err := d.way(name)
		if err != nil {
			return nil, refused(code.ServiceUnknown, err)
		}
		if len(d.services) >= maxDialed && !d.evictLocked() {
			return nil, refused(code.Limit, fmt.Errorf("%d services are in use, which is the most of one dialer: close some connections, or make another dialer", maxDialed))
		}
		s = d.addLocked(c)
	}
	s.uses++
	d.living.Add(1)
	return s, nil
}

// addLocked makes a service known, and its way, unless another service shares it.
func (d *Dialer) addLocked(c config.InletService) *dialed {
	s := &dialed{inletService: &inletService{InletService: c, bounds: newServiceLimits(c.Service), port: &inletPort{}}}
	to := destinationOf(&c)
	for _, other := range d.services {
		if o := destinationOf(&other.InletService); to.same(&o) {
			s.upstream, s.denied = other.upstream, other.denied
		}
	}
	fresh := s.upstream == nil
	if fresh {
		s.upstream, s.denied = d.newWay(&c)
	}
	s.metrics = d.streams.hold(c.Service)
	d.services[c.Service] = s
	o := &d.offering
	o.mu.Lock()
	defer o.mu.Unlock()
	s.port.service = s.inletService
	o.services = append(slices.Clone(o.services), s.inletService)
	if !fresh {
		return s
	}
	o.upstreams = append(slices.Clone(o.upstreams), s.upstream)
	if o.run != nil {
		o.run.keep(s.upstream)
	}
	return s
}

// newWay returns what leads to a service.
func (d *Dialer) newWay(c *config.InletService) (upstream, *denials) {
	if c.ByName() {
		return d.newBalancer(c.Service, c.Routes), nil
	}
	l := d.newLink(c.Outlet, c.Routes)
	n := &denials{routes: func() []listedRoute { return l.routes.states() }, waiting: map[*context.CancelCauseFunc]struct{}{}}
	l.link.trace.unreachable = func(error) { n.tell() }
	return l, n
}

// evictLocked makes room for another service, and reports whether that could be done.
func (d *Dialer) evictLocked() bool {
	var oldest *dialed
	for _, s := range d.services {
		if s.uses == 0 && (oldest == nil || s.last.Before(oldest.last)) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	delete(d.services, oldest.Service)
	shared := false
	for _, s := range d.services {
		shared = shared || s.upstream == oldest.upstream
	}
	o := &d.offering
	o.mu.Lock()
	o.services = slices.DeleteFunc(slices.Clone(o.services), func(s *inletService) bool { return s == oldest.inletService })
	o.mu.Unlock()
	d.streams.release(oldest.metrics)
	if !shared {
		oldest.upstream.finish()
	}
	return true
}

// denials tell those who wait for a channel to one outlet when waiting has no point:
// on every route somebody has said, last, that this process may not come there. A
// person with an inlet may still be putting a list right; a program that waits would
// only wait longer.
type denials struct {
	routes func() []listedRoute

	mu      sync.Mutex
	waiting map[*context.CancelCauseFunc]struct{}
}

// A deniedError is what all routes to an outlet said.
type deniedError struct{ error }

func (e *deniedError) Unwrap() error { return e.error }

// watch has cancel called when there is no point, until the func that it returns is
// called. n may be nil.
func (n *denials) watch(cancel context.CancelCauseFunc) (stop func()) {
	if n == nil {
		return func() {}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting[&cancel] = struct{}{}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waiting, &cancel)
	}
}

// tell is called after each attempt over all routes that has led nowhere.
func (n *denials) tell() {
	var errs routeErrors
	all := n.routes()
	for i, r := range all {
		if deniedCode(r.err) == code.OK {
			return
		}
		errs = append(errs, routeError(i, len(all), r.err))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for cancel := range n.waiting {
		(*cancel)(&deniedError{errs})
	}
}

// NoRoute is the error of a way that leads nowhere.
func NoRoute(service string, known []string) error {
	if len(known) == 0 {
		return fmt.Errorf("there is no way to the service %q: the dialer's settings have no routes", service)
	}
	slices.Sort(known)
	return fmt.Errorf("there is no way to the service %q: the dialer's settings have routes to %q alone", service, known)
}
