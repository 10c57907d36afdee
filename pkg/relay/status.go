package relay

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Status is what a [Server] holds at one moment. It is the caller's.
type Status struct {
	Draining      bool
	Handshakes    int // that are under way
	Conns         int // authenticated conns
	Registrations []RegistrationStatus
	Joins         []JoinStatus
	LeftOff       int // joins that are not listed
	Counts        Counts
	Refusals      map[code.Code]uint64 // since the start
}

// A RegistrationStatus is one outlet instance that is registered.
type RegistrationStatus struct {
	Identifier identity.Identifier
	Instance   string // in hexadecimal
	Remote     string // the outlet's address, or the relay's that carries it
	Since      time.Time
	Grant      uint64 // the ID of the [Grant]
	Spares     int    // conns parked
	Waiting    int    // callers held
	Draining   bool   // by the outlet's wish
}

// A JoinStatus is one caller joined to an outlet or to a next hop.
type JoinStatus struct {
	Kind           string // connect or extend
	Caller         identity.Identifier
	CallerInstance string // in hexadecimal
	Target         string // the outlet's identifier, or the address
	TargetInstance string // in hexadecimal; of connect only
	Since          time.Time
	Grant          uint64 // the ID of the [Grant]
	ToTarget       int64  // bytes
	ToCaller       int64  // bytes
}

// Counts are the numbers of a [Status], which cost little to ask for often.
type Counts struct {
	Registrations, Joins, Conns int
	Handshakes                  int    // that are under way
	Spares                      int    // conns parked
	Waiting                     int    // callers held for a spare conn
	Draining                    bool   // the relay joins nobody any more
	Joined                      uint64 // joins of which the caller was told, since the start
	Admitted                    uint64 // conns that were authenticated and had a place, since the start
	MostConns                   int    // how many Conns there may be
	// Bytes moved by joins, those that have ended included. They never become less.
	ToTarget, ToCaller int64
}

// Bytes returns what joins have moved both ways together.
func (c Counts) Bytes() int64 { return c.ToTarget + c.ToCaller }

// Counts returns the server's numbers now.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countsLocked()
}

func (s *Server) countsLocked() Counts {
	c := Counts{
		Registrations: s.registrations, Joins: len(s.joins), Conns: s.conns, Handshakes: len(s.slots), Draining: s.draining,
		Joined: s.joined, Admitted: s.placed, MostConns: s.cfg.Limits.Conns, ToTarget: s.toTarget, ToCaller: s.toCaller,
	}
	for j := range s.joins {
		c.ToTarget += j.counters.AToB.Load()
		c.ToCaller += j.counters.BToA.Load()
	}
	for _, rs := range s.outlets {
		for _, r := range rs {
			c.Spares += len(r.spares)
			c.Waiting += len(r.waiting)
		}
	}
	return c
}

// Status returns what the server holds now, oldest first.
func (s *Server) Status() Status {
	st, joins := s.status()
	// Of many joins this takes a while, in which nobody shall wait.
	slices.SortFunc(joins, func(a, b *join) int { return a.since.Compare(b.since) })
	st.list(joins)
	return st
}

// Newest is Status with at most so many joins, the newest, and these first.
func (s *Server) Newest(most int) Status {
	st, joins := s.status()
	slices.SortFunc(joins, func(a, b *join) int { return b.since.Compare(a.since) })
	st.LeftOff = max(0, len(joins)-most)
	st.list(joins[:len(joins)-st.LeftOff])
	return st
}

func (st *Status) list(joins []*join) {
	for _, j := range joins {
		st.Joins = append(st.Joins, j.status())
	}
}

// status returns what there is but the joins, and these in no order.
func (s *Server) status() (Status, []*join) {
	s.mu.Lock()
	st := Status{
		Draining:   s.draining,
		Handshakes: len(s.slots),
		Conns:      s.conns,
		Counts:     s.countsLocked(),
		Refusals:   maps.Clone(s.refusals),
	}
	for _, rs := range s.outlets {
		for _, r := range rs {
			st.Registrations = append(st.Registrations, r.statusLocked())
		}
	}
	joins := s.joinsLocked()
	s.mu.Unlock()

	slices.SortFunc(st.Registrations, func(a, b RegistrationStatus) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Instance, b.Instance))
	})
	return st, joins
}

// joinsLocked returns all joins, in no order.
func (s *Server) joinsLocked() []*join {
	joins := make([]*join, 0, len(s.joins))
	for j := range s.joins {
		joins = append(joins, j)
	}
	return joins
}

func (r *registration) statusLocked() RegistrationStatus {
	return RegistrationStatus{
		Identifier: r.peer.Identifier,
		Instance:   r.peer.Instance.String(),
		Remote:     r.conn.RemoteAddr().String(),
		Since:      r.since,
		Grant:      r.grant,
		Spares:     len(r.spares),
		Waiting:    len(r.waiting),
		Draining:   r.draining,
	}
}

func (j *join) status() JoinStatus {
	return JoinStatus{
		Kind:           j.kind.String(),
		Caller:         j.caller.Identifier,
		CallerInstance: j.caller.Instance.String(),
		Target:         j.target,
		TargetInstance: j.targetInstance,
		Since:          j.since,
		Grant:          j.grant,
		ToTarget:       j.counters.AToB.Load(),
		ToCaller:       j.counters.BToA.Load(),
	}
}
