package relay

import (
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A process is one instance of an outlet.
type process struct {
	outlet   identity.Identifier
	instance channel.Instance
}

func processOf(p channel.Peer) process { return process{p.Identifier, p.Instance} }

// A standing is what an outlet that callers are joined to has proven last, by the
// newest of its registrations: that one may have ended while joins go on, or have
// come after they began, with other credentials.
type standing struct {
	peer  channel.Peer // guarded by Server.mu, as is the rest
	joins int          // that look at it; without any it is forgotten
}

// standLocked makes a join look at its outlet's standing.
func (s *Server) standLocked(j *join) {
	if j.kind != kindConnect {
		return
	}
	of := processOf(j.outlet)
	st := s.standings[of]
	if st == nil {
		st = &standing{peer: j.outlet}
		if r := s.findLocked(of.outlet, of.instance); r != nil {
			st.peer = r.peer // newer than the one whose spare conn it was
		}
		s.standings[of] = st
	}
	st.joins++
}

// unstandLocked ends standLocked.
func (s *Server) unstandLocked(j *join) {
	if j.kind != kindConnect {
		return
	}
	of := processOf(j.outlet)
	if st := s.standings[of]; st.joins > 1 {
		st.joins--
	} else {
		delete(s.standings, of)
	}
}

// provedLocked takes in what an outlet has proven in its registration.
func (s *Server) provedLocked(p channel.Peer) {
	if st := s.standings[processOf(p)]; st != nil {
		st.peer = p
	}
}

// outletOf returns the outlet of a join that lives, as it has proven itself last.
func (s *Server) outletOf(j *join) channel.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.standings[processOf(j.outlet)]; st != nil {
		return st.peer
	}
	return j.outlet // it has just ended
}
