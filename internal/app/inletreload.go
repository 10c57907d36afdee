package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/route"
)

// An inletPlan is what an inlet is to offer in the place of what it offers now. Making
// it changes nothing.
type inletPlan struct {
	services []*inletService // those that stay as they are, and new ones
	opened   []int           // of services: those whose port is new
	closed   []*inletPort    // that are no more
	started  []upstream      // that are new
	finished []upstream      // that nothing leads to any more
	rerouted map[upstream][]route.Route
}

// offerFirst makes what the settings of the start offer, and returns where to listen.
func (in *Inlet) offerFirst() ([]place, error) {
	if err := checkOffer(&in.cfg, in.trust.enabled.Load()); err != nil {
		return nil, err
	}
	p := in.plan(&in.cfg)
	o := &in.offering
	o.mu.Lock()
	defer o.mu.Unlock()
	in.enterLocked(p)
	var places []place
	for i, s := range p.services {
		places = append(places, place{key: listKey("services", i, "listen"), addr: s.Listen, mode: s.ListenMode, service: s.Service})
	}
	return places, nil
}

// checkOffer says why an inlet cannot offer what the settings say. trusts says whether
// anybody's credentials will count.
func checkOffer(cfg *config.Inlet, trusts bool) error {
	if len(cfg.Services) == 0 {
		return cfg.Fault("services", errors.New("there are none"))
	}
	for i, c := range cfg.Services {
		if c.ByName() && !trusts {
			return cfg.Fault(listKey("services", i, "outlet"), errors.New("there is none, and no authority whose credentials could say who offers the service: "+
				"name the outlet, or say whose credentials count (authorities, or a ticket)"))
		}
	}
	return nil
}

// plan says what is to change so that the inlet offers what the settings say.
func (in *Inlet) plan(cfg *config.Inlet) *inletPlan {
	now, _ := in.offered()
	p := &inletPlan{rerouted: map[upstream][]route.Route{}}
	left := slices.Clone(now) // whose port nothing is to be offered at
	for i, c := range cfg.Services {
		s := &inletService{InletService: c}
		if was := sameListener(left, &c); was != nil {
			left = slices.DeleteFunc(left, func(other *inletService) bool { return other == was })
			s.port = was.port
			if was.Service == c.Service {
				s.bounds = was.bounds
			}
		} else {
			s.port = &inletPort{}
			p.opened = append(p.opened, i)
		}
		if s.bounds == nil {
			s.bounds = newServiceLimits(c.Service)
		}
		p.services = append(p.services, s)
	}
	for _, s := range left {
		p.closed = append(p.closed, s.port)
	}
	in.planUpstreams(p, now)
	for i, s := range p.services {
		if was := s.port.service; was != nil && was.upstream == s.upstream && reflect.DeepEqual(was.InletService, s.InletService) {
			p.services[i] = was
		}
	}
	return p
}

// sameListener returns the service, of those, that listens where c is to, the one of
// the same name before others: a free port may be wanted by several.
func sameListener(services []*inletService, c *config.InletService) (found *inletService) {
	for _, s := range services {
		if s.Listen == c.Listen && (found == nil || found.Service != c.Service && s.Service == c.Service) {
			found = s
		}
	}
	return found
}

// A destination is to whom an upstream leads, and over what.
type destination struct {
	to     string
	routes []route.Route
}

func destinationOf(c *config.InletService) destination {
	d := destination{to: c.Outlet.String(), routes: c.Routes}
	if c.ByName() {
		d.to = "any of " + c.Service // which no identifier begins with
	}
	return d
}

func (d *destination) same(other *destination) bool {
	return d.to == other.to && slices.EqualFunc(d.routes, other.routes, func(a, b route.Route) bool { return slices.Equal(a, b) })
}

// planUpstreams finds what the planned services lead to: services that lead to the same
// outlet, or to any that offers one name, over the same routes share it. What leads
// there already stays. Where only the routes are others, what leads there gets those,
// so that its channels leave the former ones without losing a stream.
func (in *Inlet) planUpstreams(p *inletPlan, now []*inletService) {
	free := map[upstream]*inletService{} // what is there, with one of the services that lead to it
	for _, s := range now {
		free[s.upstream] = s
	}
	assign := func(fits func(s, was *inletService) bool) {
		for _, s := range p.services {
			for i := 0; s.upstream == nil && i < len(now); i++ {
				if was := now[i]; free[was.upstream] != nil && fits(s, was) {
					in.assign(p, s, was.upstream)
					delete(free, was.upstream)
				}
			}
		}
	}
	assign(func(s, was *inletService) bool {
		d, before := destinationOf(&s.InletService), destinationOf(&was.InletService)
		return d.same(&before)
	})
	to := func(s, was *inletService) bool {
		return destinationOf(&s.InletService).to == destinationOf(&was.InletService).to
	}
	assign(func(s, was *inletService) bool { return to(s, was) && s.port == was.port })
	assign(to)
	for _, s := range p.services {
		if s.upstream == nil {
			u := in.newUpstream(&s.InletService)
			p.started = append(p.started, u)
			in.assign(p, s, u)
		}
	}
	for _, was := range now {
		if free[was.upstream] == nil {
			continue
		}
		delete(free, was.upstream)
		p.finished = append(p.finished, was.upstream)
		// Its streams, too, leave routes that are no more.
		if i := slices.IndexFunc(p.services, func(s *inletService) bool { return to(s, was) }); i >= 0 {
			p.rerouted[was.upstream] = p.services[i].Routes
		}
	}
}

// assign has a planned service lead over u, and all that have the same destination.
func (in *Inlet) assign(p *inletPlan, s *inletService, u upstream) {
	d := destinationOf(&s.InletService)
	for _, other := range p.services {
		if o := destinationOf(&other.InletService); d.same(&o) {
			other.upstream = u
		}
	}
	p.rerouted[u] = s.Routes
}

func (in *Inlet) newUpstream(c *config.InletService) upstream {
	if c.ByName() {
		return in.newBalancer(c.Service, c.Routes)
	}
	return in.newLink(c.Outlet, c.Routes)
}

// enterLocked makes the plan what is offered, without starting or ending anything.
func (in *Inlet) enterLocked(p *inletPlan) {
	o := &in.offering
	for _, s := range p.services {
		if s.port.service != s { // else it has stayed
			s.metrics = in.streams.holdAt(s.Service, s.Listen.String())
			s.bounds.set(s.Limits)
		}
	}
	before := o.services
	o.services = p.services
	for _, s := range p.services {
		s.port.service = s
	}
	for _, port := range p.closed {
		port.service = nil
	}
	for _, s := range before {
		if !slices.Contains(p.services, s) {
			in.streams.release(s.metrics)
		}
	}
	o.upstreams = slices.Concat(o.upstreams, p.started)
}

// reload has the inlet offer what other settings say, or changes nothing and says why.
// What is carried already goes on, whatever becomes of its service.
func (in *Inlet) reload(cfg *config.Inlet, started *config.Trust) error {
	<-in.offering.begun
	listening, err := in.offering.changing()
	if err != nil {
		return err
	}
	p := in.plan(cfg)
	lns, err := in.listenAnew(listening, p, cfg)
	if err != nil {
		return err
	}
	if err := in.apply(&cfg.Common, started, cfg.Authorities, func() {
		in.connectTimeout.Store(int64(cfg.ConnectTimeout))
		in.exchange(p, lns)
	}); err != nil {
		closeAll(lns)
		return err
	}
	return nil
}

// listenAnew opens the plan's new ports, or none and says which cannot be had.
func (in *Inlet) listenAnew(ctx context.Context, p *inletPlan, cfg *config.Inlet) ([]net.Listener, error) {
	var places []place
	for _, i := range p.opened {
		places = append(places, place{key: listKey("services", i, "listen"), addr: p.services[i].Listen, mode: p.services[i].ListenMode, service: p.services[i].Service, common: &cfg.Common})
	}
	lns, err := in.listenAll(ctx, places)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return lns, err
	}
	_, addrs := in.offered()
	for _, a := range addrs {
		for _, wanted := range places {
			if tcp, ok := a.(*net.TCPAddr); ok && tcp.Port == int(wanted.addr.Port) && slices.ContainsFunc(p.closed, func(port *inletPort) bool { return port.ln.Addr() == a }) {
				return nil, fmt.Errorf("%w (this inlet itself listens at %s until the new settings hold: restart it, or take that service out first, and add the other one afterwards)", err, a)
			}
		}
	}
	return nil, err
}

// exchange makes the plan what is offered, with listeners for its new ports.
func (in *Inlet) exchange(p *inletPlan, lns []net.Listener) {
	if !in.exchanged(p, lns) {
		closeAll(lns)
		return // the process stops
	}
	for u, routes := range p.rerouted {
		u.reroute(routes)
	}
	// Last: whoever waited there finds what has taken its place.
	for _, u := range p.finished {
		u.finish()
	}
}

// exchanged is exchange, as far as that needs the lock. It reports whether anything may
// be changed.
func (in *Inlet) exchanged(p *inletPlan, lns []net.Listener) bool {
	o := &in.offering
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.settled {
		return false
	}
	gone := map[string]struct{}{}
	for _, s := range o.services {
		gone[s.Service] = struct{}{}
		if slices.Contains(p.closed, s.port) {
			in.log.Info("listening no more", zap.String("service", s.Service), zap.Stringer("address", s.port.ln.Addr()))
		}
	}
	in.enterLocked(p)
	for _, u := range p.started {
		o.run.keep(u)
	}
	for k, i := range p.opened {
		p.services[i].port.ln = lns[k]
		o.run.accept(p.services[i])
	}
	for _, port := range p.closed {
		port.stop()
		_ = port.ln.Close() // at once: the next settings may name the address again
	}
	for _, s := range p.services {
		in.checkLocked(s.Service)
		delete(gone, s.Service)
	}
	for name := range gone {
		in.obs.Ready.Delete(obs.ServiceCheck(name))
	}
	return true
}
