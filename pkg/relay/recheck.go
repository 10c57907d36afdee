package relay

import (
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// Recheck asks the authorizers again about everybody who is here, and ends
// what is allowed no more: registrations with [code.RegisterDenied] or the code of a
// [*DeniedError], and with a reset joins, also those to an outlet that may not be offered here any more, whether
// or not it is registered: what counts is what it has proven in its last registration.
// Whoever [channel.Local.Admit] does not admit any more loses everything, with
// the code that it says. Who was allowed before and is not here yet is asked about
// again on arrival. It is for after the lists behind the authorizers have changed.
func (s *Server) Recheck() {
	s.mu.Lock()
	s.rechecks++
	var registrations []*registration
	for _, rs := range s.outlets {
		registrations = append(registrations, rs...)
	}
	s.mu.Unlock()
	for _, r := range registrations {
		r.recheck()
	}
	s.mu.Lock()
	joins := s.joinsLocked()
	s.mu.Unlock()
	for _, j := range joins {
		if err := s.allowed(j); err != nil {
			j.cancel(err)
		}
	}
}

// recheck ends a registration that is allowed no more.
func (r *registration) recheck() {
	if err := r.s.admitted(r.peer); err != nil {
		var d *declinedError
		errors.As(err, &d)
		r.end(ending{code: d.code, reason: d.reason, err: err})
		return
	}
	if err := r.s.cfg.Register(r.peer); err != nil {
		reason, _ := told(err)
		r.end(ending{code: codeOf(code.RegisterDenied, err), reason: reason, err: err})
	}
}

// outdated reports whether there was a Recheck since the caller came, so that
// what the authorizers said may hold no more.
func (c *call) outdated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rechecks != c.ticket.rechecks
}

// denial declines for an authorizer's error.
func denial(c code.Code, err error) error {
	reason, why := told(err)
	return &declinedError{code: codeOf(c, err), reason: reason, why: why}
}

// codeOf returns the code of an authorizer's error: its own, or that of the kind of
// request.
func codeOf(c code.Code, err error) code.Code {
	var d *DeniedError
	if errors.As(err, &d) && d.Code != code.OK {
		return d.Code
	}
	return c
}

// admitted declines a peer whose identity is not accepted any more.
func (s *Server) admitted(p channel.Peer) error {
	err := s.cfg.Local.Admit(p)
	if err == nil {
		return nil
	}
	c := code.ChannelDenied
	var denied *channel.PeerError
	if errors.As(err, &denied) {
		c = denied.Code
	}
	return &declinedError{code: c, reason: err.Error()}
}

// allowed asks about a live join. Whoever has one was allowed it, so there is
// an authorizer to ask.
func (s *Server) allowed(j *join) error {
	if err := s.admitted(j.caller); err != nil {
		return err
	}
	if j.kind == kindExtend {
		if err := s.cfg.Extend(j.caller, j.target); err != nil {
			return denial(code.ExtendDenied, err)
		}
		return nil
	}
	outlet := s.outletOf(j)
	if err := s.admitted(outlet); err != nil {
		return err
	}
	if err := s.cfg.Register(outlet); err != nil {
		return denial(code.RegisterDenied, fmt.Errorf("the outlet may not be offered here any more: %w", err))
	}
	if err := s.cfg.Connect(j.caller, j.outlet.Identifier); err != nil {
		return denial(code.ConnectDenied, err)
	}
	return nil
}
