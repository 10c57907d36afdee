package app

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/sock"
)

// An inletOffering is what an inlet offers to local clients, and what runs for that.
// [Inlet.begin] starts it; other settings change it while it runs, one at a time.
type inletOffering struct {
	begun chan struct{} // closed by begin

	mu sync.Mutex
	// services are those that are offered, in the settings' order. Another slice takes
	// its place; none is written.
	services []*inletService
	// upstreams are those that the services lead to, each once, and behind them those
	// that finish their streams.
	upstreams []upstream
	run       *inletRun // nil before begin, and after settle
	settled   bool      // settle was called: nothing changes any more

	// Written with mu, by whoever changes what is offered, who reads them without.
	idle  []*inletPort     // at sockets of the service manager, at which nothing is offered
	spare []*serviceLimits // of services that are gone, while their connections last
}

// An inletService is what is offered at a local port, and where its clients are carried
// to. It does not change, but for its counts and limits, which go over to the one that takes its
// place.
type inletService struct {
	config.InletService
	upstream upstream
	metrics  *serviceMetrics
	bounds   *serviceLimits
	port     *inletPort

	// leads ends, by leave, when clients are led elsewhere, or nowhere. nil: never.
	leads context.Context
	leave context.CancelFunc
	heir  *inletService // what has taken its place; guarded by the offering's mu
}

// An inletPort accepts local clients, who get what is offered there when they come.
type inletPort struct {
	// Guarded by the offering's mu.
	ln      net.Listener       // nil before Listen
	stop    context.CancelFunc // accepts no more, and closes ln; nil before begin
	service *inletService      // nil when nothing is offered there any more
	place   place              // where ln was opened
}

// An inletRun is what an inlet's work has started, and by what it ends. Its goroutines
// are started with the offering's mu, and not after settle.
type inletRun struct {
	in                 *Inlet
	linkCtx            context.Context // of links
	streamCtx, openCtx context.Context // of clients' streams, and of their opening
	acceptCtx          context.Context // of listeners
	fail               func()          // ends the work

	links, accepting, clients sync.WaitGroup

	mu   sync.Mutex
	errs []error // of listeners
}

// begin starts what is offered.
func (in *Inlet) begin(r *inletRun) {
	o := &in.offering
	o.mu.Lock()
	defer o.mu.Unlock()
	o.run = r
	for i, s := range o.services {
		s.port.ln, s.port.place = in.lns[i], in.places[i]
	}
	for _, u := range o.upstreams {
		r.keep(u)
	}
	for _, s := range o.services {
		r.accept(s)
		in.checkLocked(s.Service)
	}
	close(o.begun)
}

// settle has nothing be changed or started any more.
func (in *Inlet) settle() {
	in.offering.mu.Lock()
	defer in.offering.mu.Unlock()
	in.offering.run, in.offering.settled = nil, true
}

// changing returns the context of listeners, or why nothing may be changed any more.
func (o *inletOffering) changing() (context.Context, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.settled {
		return nil, errShutdown
	}
	return o.run.acceptCtx, nil
}

// keep keeps sessions for an upstream until it has finished.
func (r *inletRun) keep(u upstream) {
	r.links.Go(func() {
		r.in.member.await(r.linkCtx)
		u.run(r.linkCtx)
		r.in.forget(u)
	})
}

// accept accepts clients at a service's port, whatever is offered there later. It is
// called with the offering's mu.
func (r *inletRun) accept(s *inletService) {
	in, p := r.in, s.port
	ctx, stop := context.WithCancel(r.acceptCtx)
	p.stop = stop
	in.logListening(s)
	a := &acceptor{ln: p.ln, slots: in.slots, log: in.log, start: r.clients.Go, handle: func(nc net.Conn, free func()) {
		c := in.enter(p)
		if c == nil {
			free()
			_ = sock.ResetClose(nc) // it came as the listener was closed, or to one that is kept open by others
			return
		}
		c.free = free
		if c.serve(r.openCtx, nc) {
			// Opening has made this goroutine's stack large for as long as it lives:
			// the stream gets another one.
			r.clients.Go(func() { c.carry(r.streamCtx) })
		}
	}}
	r.accepting.Go(func() {
		defer stop()
		if err := a.run(ctx); err != nil {
			r.mu.Lock()
			r.errs = append(r.errs, err)
			r.mu.Unlock()
			r.fail()
		}
	})
}

// logListening says that clients get a service at its port.
func (in *Inlet) logListening(s *inletService) {
	in.log.Info("listening", zap.String("service", s.Service), zap.Stringer("address", s.port.ln.Addr()), zap.String("outlet", s.outlet()))
}

// failed returns why listeners have failed, nil if none has.
func (r *inletRun) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// enter returns a client that comes to a port now, with the service that it gets; nil
// where that is none. It has its place among the service's connections, or the reason why
// there is none, and the service's metrics are retained: whatever becomes of the service
// in the next moment, the client counts. Whoever enters leaves.
func (in *Inlet) enter(p *inletPort) *inletClient {
	in.offering.mu.Lock()
	defer in.offering.mu.Unlock()
	s := p.service
	if s == nil {
		return nil
	}
	in.streams.retain(s.metrics)
	return &inletClient{in: in, service: s, full: s.bounds.enter()}
}

// errWithdrawn is why a client gets no stream that came before the settings changed.
var errWithdrawn = errors.New("this inlet does not offer the service any more: its settings have changed")

// successor returns the service that has taken the place of s, nil if none has.
func (in *Inlet) successor(s *inletService) *inletService {
	in.offering.mu.Lock()
	defer in.offering.mu.Unlock()
	last := s
	for last.heir != nil {
		last = last.heir
	}
	if last == s || last.port.service != last { // which has no heir, either
		return nil
	}
	return last
}

// forget takes out an upstream that has ended.
func (in *Inlet) forget(u upstream) {
	in.offering.mu.Lock()
	defer in.offering.mu.Unlock()
	in.offering.upstreams = slices.DeleteFunc(slices.Clone(in.offering.upstreams), func(other upstream) bool { return other == u })
}

// offered returns the services that are offered, in the settings' order, and where each
// listens: nil before that.
func (in *Inlet) offered() (services []*inletService, addrs []net.Addr) {
	in.offering.mu.Lock()
	defer in.offering.mu.Unlock()
	for _, s := range in.offering.services {
		var a net.Addr
		if s.port.ln != nil {
			a = s.port.ln.Addr()
		}
		addrs = append(addrs, a)
	}
	return in.offering.services, addrs
}

// Addrs returns where the inlet listens, in the settings' order, once Listen was
// called.
func (in *Inlet) Addrs() []net.Addr {
	_, addrs := in.offered()
	if slices.Contains(addrs, nil) {
		return in.base.Addrs() // the work has not begun
	}
	return addrs
}

// wanted returns what the services lead to that are offered, each once.
func (in *Inlet) wanted() (list []upstream) {
	services, _ := in.offered()
	for _, s := range services {
		if !slices.Contains(list, s.upstream) {
			list = append(list, s.upstream)
		}
	}
	return list
}

// finishing returns the links of upstreams that no service leads to any more.
func (in *Inlet) finishing() (all []*link) {
	wanted := in.wanted()
	in.offering.mu.Lock()
	upstreams := in.offering.upstreams
	in.offering.mu.Unlock()
	for _, u := range upstreams {
		if !slices.Contains(wanted, u) {
			all = append(all, u.links()...)
		}
	}
	return all
}

// allLinks returns the links to outlets that the settings name, to replicas, and those
// that finish their streams.
func (in *Inlet) allLinks() (all []*link) {
	in.offering.mu.Lock()
	upstreams := in.offering.upstreams
	in.offering.mu.Unlock()
	for _, u := range upstreams {
		all = append(all, u.links()...)
	}
	return all
}

// links returns the link itself.
func (l *link) links() []*link { return []*link{l} }

// checkLocked makes the check of a service's name.
func (in *Inlet) checkLocked(name string) {
	in.obs.Ready.SetFunc(obs.ServiceCheck(name), func() error {
		services, _ := in.offered()
		for _, s := range services {
			if s.Service != name {
				continue
			}
			if err := s.upstream.ready(); err != nil {
				return err
			}
		}
		return nil
	})
}

// outlet says for people whose the service is.
func (s *inletService) outlet() string {
	if s.ByName() {
		return "any that proves to offer it"
	}
	return s.Outlet.String()
}
