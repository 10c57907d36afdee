package relay

import "time"

// A StepKind is what a [Dialer] does at a hop: a stable word.
type StepKind string

const (
	// StepResolve finds the addresses of the first hop's host.
	StepResolve StepKind = "resolve"
	// StepConnect makes a TCP connection to an address of the first hop.
	StepConnect StepKind = "connect"
	// StepHandshake is the one in which a hop proves its identity.
	StepHandshake StepKind = "handshake"
	// StepAnswer is what a hop says to a request.
	StepAnswer StepKind = "answer"
)

// A Step is one thing that a [Dialer] has done on its way along a route. Only the
// first hop is resolved and connected to by this process: what a relay does to reach
// the next one is part of that relay's answer to "extend", as is its failure.
type Step struct {
	Hop       int // counted from 1
	Kind      StepKind
	Address   string        // ip:port of the hop; "" of StepResolve, and where the relay before the hop has not said it
	Addresses []string      // of StepResolve, as ip:port, in the order in which they are tried
	Request   string        // of StepAnswer: extend, connect, find, register or park
	Took      time.Duration // from the step's beginning to its end
	Err       error         // nil: it has worked
}

// stepped tells Trace of a step that began then and has ended now.
func (d *Dialer) stepped(s Step, began time.Time, err error) {
	if d.Trace == nil {
		return
	}
	s.Took, s.Err = time.Since(began), err
	d.Trace(s)
}

// at returns a Dialer of which Trace hears at which hop, counted from 0, and address
// it does something.
func (d *Dialer) at(hop int, address string) *Dialer {
	if d.Trace == nil {
		return d
	}
	e := *d
	e.Trace = func(s Step) {
		s.Hop, s.Address = hop+1, address
		d.Trace(s)
	}
	return &e
}
