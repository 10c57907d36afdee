package relay

import "github.com/culvert-net/culvert/pkg/code"

// Recheck asks the authorizers again about everybody who is here, and ends
// what is allowed no more: registrations with [code.RegisterDenied], joins with
// a reset. Who was allowed before and is not here yet is asked about again on
// arrival. It is for after the lists behind the authorizers have changed.
func (s *Server) Recheck() {
	s.mu.Lock()
	s.rechecks++
	var registrations []*registration
	for _, rs := range s.outlets {
		registrations = append(registrations, rs...)
	}
	joins := s.joinsLocked()
	s.mu.Unlock()
	for _, r := range registrations {
		r.recheck()
	}
	for _, j := range joins {
		if err := s.allowed(j); err != nil {
			j.cancel(err)
		}
	}
}

func (r *registration) recheck() {
	if err := r.s.cfg.Register(r.peer); err != nil {
		reason, _ := told(err)
		r.end(ending{code: code.RegisterDenied, reason: reason, err: err})
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
	return &declinedError{code: c, reason: reason, why: why}
}

// allowed asks about a live join. Whoever has one was allowed it, so there is
// an authorizer to ask.
func (s *Server) allowed(j *join) error {
	if j.kind == kindExtend {
		if err := s.cfg.Extend(j.caller, j.target); err != nil {
			return denial(code.ExtendDenied, err)
		}
		return nil
	}
	if err := s.cfg.Connect(j.caller); err != nil {
		return denial(code.ConnectDenied, err)
	}
	return nil
}
