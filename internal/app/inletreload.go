package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"syscall"

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
	idled    []*inletPort    // at which nothing is offered any more, and which stay open
	started  []upstream      // that are new
	finished []upstream      // that nothing leads to any more
	rerouted map[upstream][]route.Route

	heirs map[*inletService]*inletService // of those that do not stay: what takes their place
	spare []*serviceLimits                // of services that are gone
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
		at := s.place()
		at.key = listKey("services", i, "listen")
		places = append(places, at)
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
	p := &inletPlan{rerouted: map[upstream][]route.Route{}, heirs: map[*inletService]*inletService{}}
	for _, c := range cfg.Services {
		p.services = append(p.services, &inletService{InletService: c})
	}
	in.planPorts(p, now)
	p.inherit(now, in.offering.spare)
	in.planUpstreams(p, now)
	for i, s := range p.services {
		if was := s.port.service; was != nil && was.upstream == s.upstream && reflect.DeepEqual(was.InletService, s.InletService) {
			p.services[i] = was
			delete(p.heirs, was)
		}
	}
	return p
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

// sameDestination reports whether two services lead to the same, over the same routes.
func sameDestination(s, other *inletService) bool {
	d, o := destinationOf(&s.InletService), destinationOf(&other.InletService)
	return d.same(&o)
}

// sameEnd reports whether two services lead to the same, over whatever routes.
func sameEnd(s, other *inletService) bool {
	return destinationOf(&s.InletService).to == destinationOf(&other.InletService).to
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
	assign(sameDestination)
	assign(func(s, was *inletService) bool { return sameEnd(s, was) && s.port == was.port })
	assign(sameEnd)
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
	}
}

// routesTo returns over what the planned services reach the outlet of a link that only
// finishes its streams, nil where they say nothing of it.
func (p *inletPlan) routesTo(l *link) []route.Route {
	for _, leads := range []func(s *inletService) bool{
		func(s *inletService) bool { return s.ByName() && s.Service == l.service },
		func(s *inletService) bool { return s.Outlet == l.outlet },
		func(s *inletService) bool { // by the name of another service, as relays have it
			return slices.ContainsFunc(s.upstream.links(), func(other *link) bool { return other.outlet == l.outlet })
		},
	} {
		if i := slices.IndexFunc(p.services, leads); i >= 0 {
			return p.services[i].Routes
		}
	}
	return nil
}

// assign has a planned service lead over u, and all that have the same destination.
func (in *Inlet) assign(p *inletPlan, s *inletService, u upstream) {
	for _, other := range p.services {
		if sameDestination(s, other) {
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
	before := o.services
	for _, s := range p.services {
		if s.port.service != s { // else it has stayed
			s.metrics = in.streams.holdAt(s.Service, s.Listen.String())
			s.bounds.set(s.Limits)
		}
	}
	o.services = p.services
	// Not before: until now clients could come to what is gone.
	o.spare = slices.DeleteFunc(p.spare, func(l *serviceLimits) bool { return !l.inUse() })
	o.idle = slices.DeleteFunc(slices.Concat(o.idle, p.idled), func(port *inletPort) bool {
		return slices.ContainsFunc(p.services, func(s *inletService) bool { return s.port == port })
	})
	for _, port := range slices.Concat(p.closed, p.idled) {
		port.service = nil
	}
	for _, s := range p.services {
		s.port.service = s
	}
	for _, was := range before {
		if !slices.Contains(p.services, was) {
			was.succeed(p.heirs[was])
			in.streams.release(was.metrics)
		}
	}
	for _, s := range p.services {
		s.begin()
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
	widen, undo, err := in.setModes(p, cfg)
	if err != nil {
		closeAll(lns)
		return err
	}
	if err := in.apply(&cfg.Common, started, cfg.Authorities, func() {
		in.connectTimeout.Store(int64(cfg.ConnectTimeout))
		in.exchange(p, lns)
		widen()
	}); err != nil {
		undo()
		closeAll(lns)
		return err
	}
	return nil
}

// listenAnew opens the plan's new ports, or none and says which cannot be had.
func (in *Inlet) listenAnew(ctx context.Context, p *inletPlan, cfg *config.Inlet) ([]net.Listener, error) {
	var places []place
	for _, i := range p.opened {
		at := p.services[i].place()
		at.key, at.common = listKey("services", i, "listen"), &cfg.Common
		places = append(places, at)
	}
	lns, err := in.listenAll(ctx, places)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return lns, err
	}
	for _, port := range slices.Concat(p.closed, p.idled, in.offering.idle) {
		a, tcp := port.ln.Addr().(*net.TCPAddr)
		if !tcp || !slices.ContainsFunc(places, func(wanted place) bool { return int(wanted.addr.Port) == a.Port }) {
			continue
		}
		if s := port.place.socket; s != nil {
			return nil, fmt.Errorf("%w (the service manager's socket %q listens at %s: write the address as it was when this inlet was started, or restart it)", err, s.Name(), a)
		}
		return nil, fmt.Errorf("%w (this inlet itself listens at %s until the new settings hold: restart it, or take that service out first, and add the other one afterwards)", err, a)
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
	for _, l := range in.finishing() {
		if routes := p.routesTo(l); routes != nil {
			l.reroute(routes) // its streams, too, leave routes that are no more
		}
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
		in.logLeft(p, s)
	}
	resumed := p.resumed(o.idle)
	in.enterLocked(p)
	for _, u := range p.started {
		o.run.keep(u)
	}
	for k, i := range p.opened {
		s := p.services[i]
		s.port.ln, s.port.place = lns[k], s.place()
		o.run.accept(s)
	}
	for _, s := range resumed {
		in.logListening(s)
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
