package relay

import (
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Trace is told what a [Server] does. Every func may be nil. They are called
// from the server's goroutines, several at a time, and must not block.
type Trace struct {
	// AcceptPaused says that accepting failed, with no descriptors left for
	// example, and goes on after pause.
	AcceptPaused func(err error, pause time.Duration)
	// HandshakeFailed is called for a conn that did not get as far as a request.
	HandshakeFailed func(remote net.Addr, err error)
	// Refused is called for every request that is refused.
	Refused func(Refusal)
	// Abandoned is called for a request whose caller left before the answer. The
	// grant is 0 when it was not allowed yet.
	Abandoned func(peer channel.Peer, request string, grant uint64, err error)

	Registered func(RegistrationStatus)
	// RegistrationEnded says why a registration went: the code is what the
	// outlet was told, or has told; OK is its own clean end.
	RegistrationEnded func(r RegistrationStatus, c code.Code, err error)
	// SpareLost is called for a parked conn that was given up: it died or ended
	// while parked, or did not answer when it was wanted.
	SpareLost func(peer channel.Peer, err error)

	Joined func(JoinStatus)
	// JoinEnded has the join's last counts and why it ended: OK and nil when
	// both ends have ended their direction. Nobody is told the code.
	JoinEnded func(j JoinStatus, c code.Code, err error)

	// Found is called for a find that was answered.
	Found func(Finding)
}

// A Finding is a find that was answered.
type Finding struct {
	Peer    channel.Peer
	Remote  net.Addr
	Service string
	Listed  int    // outlets that the caller was told of
	LeftOut int    // those beyond, since there are too many for one answer
	Grant   uint64 // the ID of the [Grant]
}

// A Refusal is a request that was refused.
type Refusal struct {
	Peer    channel.Peer
	Remote  net.Addr
	Request string // register, park, connect, extend, find or unknown
	Target  string // the outlet's identifier or the address, where there is one
	Service string // of find: the service's name
	Code    code.Code
	Reason  string // what the caller was told
	Why     string // what it was not told, of a [*DeniedError]
	Grant   uint64 // of a request that was allowed before; 0: it was not
	Usual   bool   // an answer that belongs to the way of asking, and is not counted
}

// filled returns a copy whose funcs can all be called.
func (t Trace) filled() *Trace {
	if t.AcceptPaused == nil {
		t.AcceptPaused = func(error, time.Duration) {}
	}
	if t.HandshakeFailed == nil {
		t.HandshakeFailed = func(net.Addr, error) {}
	}
	if t.Refused == nil {
		t.Refused = func(Refusal) {}
	}
	if t.Abandoned == nil {
		t.Abandoned = func(channel.Peer, string, uint64, error) {}
	}
	if t.Registered == nil {
		t.Registered = func(RegistrationStatus) {}
	}
	if t.RegistrationEnded == nil {
		t.RegistrationEnded = func(RegistrationStatus, code.Code, error) {}
	}
	if t.SpareLost == nil {
		t.SpareLost = func(channel.Peer, error) {}
	}
	if t.Joined == nil {
		t.Joined = func(JoinStatus) {}
	}
	if t.JoinEnded == nil {
		t.JoinEnded = func(JoinStatus, code.Code, error) {}
	}
	if t.Found == nil {
		t.Found = func(Finding) {}
	}
	return &t
}
