package relay

import (
	"context"
	"time"
)

// Drain makes the server go away gently: from now on new requests are refused
// with [code.Draining], the outlets that are registered are told, and the joins
// that are left are reset one by one, spread evenly over the time given, with
// [ErrDraining] as cause. It returns when no join is left. When ctx ends first,
// the rest are reset at once and its error is returned. Serve goes on, to tell
// callers why they are refused, until its own ctx ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		close(s.drained) // callers that are held are told
	}
	for _, rs := range s.outlets {
		for _, r := range rs {
			r.kickWriter()
		}
	}
	joins := s.joinsLocked() // in random order, as maps are
	s.mu.Unlock()

	start := time.Now()
	for i, j := range joins {
		due := start.Add(over / time.Duration(len(joins)) * time.Duration(i+1))
		t := time.NewTimer(time.Until(due))
		select {
		case <-t.C:
		case <-j.done:
		case <-ctx.Done():
		}
		t.Stop()
		j.cancel(ErrDraining)
	}
	for _, j := range joins {
		<-j.done
	}
	return ctx.Err()
}
