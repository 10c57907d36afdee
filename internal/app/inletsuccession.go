package app

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"reflect"
	"slices"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// place returns where a service is to be listened for, without the key of its setting.
func (s *inletService) place() place {
	return place{addr: s.Listen, mode: s.ListenMode, service: s.Service}
}

// planPorts finds where the planned services are offered: where the one of the same
// name and address is now, where another of the same address is, at a socket of the
// service manager that nothing uses, or at a new port. Of port 0, which is another port
// each time, nobody but the service itself keeps the one that it has: its clients would
// get another service. Of several of one name it is the one that has not changed, or leads
// to the same: their order in the settings says nothing.
func (in *Inlet) planPorts(p *inletPlan, now []*inletService) {
	left := slices.Clone(now) // whose port nothing is to be offered at
	take := func(fits func(s, was *inletService) bool) {
		for _, s := range p.services {
			if s.port != nil {
				continue
			}
			if i := slices.IndexFunc(left, func(was *inletService) bool { return was.Listen == s.Listen && fits(s, was) }); i >= 0 {
				s.port = left[i].port
				left = slices.Delete(left, i, i+1)
			}
		}
	}
	named := func(s, was *inletService) bool { return s.Service == was.Service }
	take(func(s, was *inletService) bool { return reflect.DeepEqual(s.InletService, was.InletService) })
	take(func(s, was *inletService) bool { return named(s, was) && sameDestination(s, was) })
	take(func(s, was *inletService) bool { return named(s, was) && sameEnd(s, was) })
	take(named)
	take(func(s, _ *inletService) bool { return s.Listen.Port != 0 || s.Listen.Path != "" })
	idle := slices.Clone(in.offering.idle)
	for i, s := range p.services {
		if s.port != nil {
			continue
		}
		if k := idleFor(idle, s); k >= 0 {
			s.port = idle[k]
			idle = slices.Delete(idle, k, k+1)
			continue
		}
		s.port = &inletPort{}
		p.opened = append(p.opened, i)
	}
	for _, was := range left {
		if was.port.place.socket != nil {
			p.idled = append(p.idled, was.port)
		} else {
			p.closed = append(p.closed, was.port)
		}
	}
}

// idleFor returns the index of the port, of those at which nothing is offered, that is at
// the service manager's socket for a service; -1 if there is none.
func idleFor(idle []*inletPort, s *inletService) int {
	return slices.IndexFunc(idle, func(port *inletPort) bool { return port.place.isFor(s.place()) })
}

// resumed returns the planned services that are offered at ports at which nothing is.
func (p *inletPlan) resumed(idle []*inletPort) (list []*inletService) {
	for _, s := range p.services {
		if slices.Contains(idle, s.port) {
			list = append(list, s)
		}
	}
	return list
}

// logLeft says what becomes of a port of a service that leaves it, where nothing else is
// offered there. A socket of the service manager listens whatever this process does: its
// clients are accepted, and reset, so that they do not wait for ever.
func (in *Inlet) logLeft(p *inletPlan, s *inletService) {
	fields := []zap.Field{zap.String("service", s.Service), zap.Stringer("address", s.port.ln.Addr())}
	switch {
	case slices.Contains(p.closed, s.port):
		in.log.Info("listening no more", fields...)
	case slices.Contains(p.idled, s.port):
		in.log.Warn("no service is offered any more at a socket of the service manager, its clients are reset until one is: "+
			"stop the socket's unit, or take the address out of it before this process is started again",
			append(fields, zap.String("socket", s.port.place.socket.Name()))...)
	}
}

// inherit finds for each planned service whose place it takes: that of the one of its
// name at its port, or of the one of its name that has moved, which leads to the same
// outlet, or is the only one. Its clients that wait are its heir's, and its limits are,
// with the connections that it has: these also go to a service of that name that comes
// later. spare are those of earlier settings.
func (p *inletPlan) inherit(now []*inletService, spare []*serviceLimits) {
	left := slices.Clone(now)
	take := func(fits func(s, was *inletService) bool) {
		for _, s := range p.services {
			if s.bounds != nil {
				continue
			}
			if i := slices.IndexFunc(left, func(was *inletService) bool { return was.Service == s.Service && fits(s, was) }); i >= 0 {
				s.bounds, p.heirs[left[i]] = left[i].bounds, s
				left = slices.Delete(left, i, i+1)
			}
		}
	}
	alone := func(services []*inletService, name string) bool {
		n := 0
		for _, s := range services {
			if s.Service == name {
				n++
			}
		}
		return n == 1
	}
	take(func(s, was *inletService) bool { return s.port == was.port })
	take(sameEnd)
	take(func(s, _ *inletService) bool { return alone(now, s.Service) && alone(p.services, s.Service) })
	p.spare = slices.Clone(spare)
	for _, was := range left {
		p.spare = append(p.spare, was.bounds)
	}
	for _, s := range p.services {
		if s.bounds == nil {
			s.bounds = p.takeSpare(s.Service)
		}
	}
}

// takeSpare returns limits for a service that has none: those of that name whose
// connections still count, if there are some. Where nobody has a place now, somebody can
// take one before the plan is what is offered.
func (p *inletPlan) takeSpare(name string) *serviceLimits {
	i := slices.IndexFunc(p.spare, func(l *serviceLimits) bool { return l.name == name && l.inUse() })
	if i < 0 {
		i = slices.IndexFunc(p.spare, func(l *serviceLimits) bool { return l.name == name })
	}
	if i < 0 {
		return newServiceLimits(name)
	}
	l := p.spare[i]
	p.spare = slices.Delete(p.spare, i, i+1)
	return l
}

// inUse reports whether connections count.
func (l *serviceLimits) inUse() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open > 0
}

// begin has clients be led where the service leads, until succeed is called. It is called
// with the offering's mu, as succeed is.
func (s *inletService) begin() {
	if s.leads == nil {
		s.leads, s.leave = context.WithCancel(context.Background())
	}
}

// succeed makes heir what takes the place of s; nil: nothing does. Those who wait go on
// where that leads to the same.
func (s *inletService) succeed(heir *inletService) {
	if s.heir = heir; heir != nil && heir.upstream == s.upstream {
		heir.leads, heir.leave = s.leads, s.leave
		return
	}
	s.leave()
}

// open opens a stream where the service leads, and waits for a session until ctx ends.
// The error is errFinished where others that come now are led elsewhere, or nowhere: see
// [Inlet.successor].
func (s *inletService) open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, *held, error) {
	if s.leads == nil {
		return s.upstream.open(ctx, o) // nothing takes its place
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.leads, func() { cancel(errFinished) })()
	st, h, err := s.upstream.open(ctx, o)
	if err != nil && errors.Is(context.Cause(ctx), errFinished) {
		err = errFinished // whatever it was that could not go on
	}
	return st, h, err
}

// mode returns who may connect to the unix socket where the service is offered, zero where
// that is none.
func (s *inletService) mode() fs.FileMode {
	if s.Listen.Path == "" {
		return 0
	}
	return cmp.Or(s.ListenMode, config.DefaultListenMode)
}

// setModes takes from unix sockets that stay the permissions that are not planned, or
// nothing from any, and says which cannot be had. What is planned beside what there was
// is for widen to give, once the new services are behind the sockets: nobody is to reach
// a former one by the mode of its successor. undo gives them their former modes.
func (in *Inlet) setModes(p *inletPlan, cfg *config.Inlet) (widen, undo func(), err error) {
	var done, wider []*inletService
	give := func(to []*inletService) func() {
		return func() {
			for _, s := range to {
				if err := sock.SetMode(s.port.ln, s.mode()); err != nil {
					in.log.Error("a socket has not the mode that its settings say", zap.Stringer("address", s.port.ln.Addr()), zap.Error(err))
				}
			}
		}
	}
	undo = func() { give(done)() }
	for i, s := range p.services {
		was := s.port.service
		if was == nil || was.mode() == s.mode() {
			continue
		}
		if err := sock.SetMode(s.port.ln, s.mode()&was.mode()); err != nil {
			undo()
			return nil, nil, cfg.Fault(listKey("services", i, "listen_mode"), in.beyond(err))
		}
		done, wider = append(done, was), append(wider, s)
	}
	return give(wider), undo, nil
}
