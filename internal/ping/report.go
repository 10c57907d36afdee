package ping

import (
	"slices"
	"time"
)

// A Report is what a [Pinger] has found.
type Report struct {
	Service string `json:"service"`
	Inlet   string `json:"inlet"` // identifier
	// Notes are what makes this different from what the inlet would find.
	Notes []string `json:"notes,omitempty"`
	// Works reports whether one way at least does.
	Works       bool   `json:"works"`
	Interrupted bool   `json:"interrupted,omitempty"`
	Ways        []*Way `json:"ways"`
}

// A Way is a route to an outlet, or to a relay that was asked for outlets, and how far
// along it this process got.
type Way struct {
	Route  string `json:"route"`
	Number int    `json:"number"` // of the route, best first, from 1
	Of     int    `json:"of"`
	// Outlet is the identifier of the one that is to answer; "" of a way to a relay that is
	// asked who offers the service.
	Outlet   string `json:"outlet,omitempty"`
	Instance string `json:"instance,omitempty"` // of who has answered
	Name     string `json:"name,omitempty"`     // of that process; its own claim

	// Works reports whether the outlet has accepted a channel, has answered a PING, if
	// there was time for one, and has opened the service, where that was asked for. It is
	// false of a relay that was asked.
	Works bool   `json:"works"`
	Steps []Step `json:"steps"`
	Found int    `json:"found,omitempty"` // outlets that the relay lists
	Pings *Pings `json:"pings,omitempty"`
	// Changes are what has happened to the path while there were PINGs, oldest first.
	Changes []Change `json:"changes,omitempty"`
	*Problem
}

// A Problem is why something does not work, and what may help.
type Problem struct {
	Error  string `json:"error"`
	Code   string `json:"code"`             // as logs and metrics name it
	Remedy string `json:"remedy,omitempty"` // what to change
}

// The places of a way.
const (
	AtRelay   = "relay"
	AtOutlet  = "outlet"
	AtService = "service"
)

// The steps of a way, beside those of package relay.
const (
	StepChannel = "channel" // the outlet accepts one
	StepOpen    = "open"    // the outlet opens the service
)

// A Step is one thing that was done on a way.
type Step struct {
	At         string   `json:"at"`  // relay, outlet or service
	Hop        int      `json:"hop"` // from 1; an outlet behind relays is one more than the last of them
	Identifier string   `json:"identifier"`
	Service    string   `json:"service,omitempty"` // of open
	Host       string   `json:"host,omitempty"`    // host:port, as the route has it
	Address    string   `json:"address,omitempty"` // which of the host's addresses
	Addresses  []string `json:"addresses,omitempty"`
	Kind       string   `json:"step"`              // resolve, connect, handshake, answer, channel or open
	Request    string   `json:"request,omitempty"` // of answer: extend, connect or find
	Seconds    float64  `json:"seconds"`
	*Problem
}

// Pings are the round trips of a way.
type Pings struct {
	Sent     int     `json:"sent"`
	Answered int     `json:"answered"`
	Min      float64 `json:"min_seconds"` // 0 where none was answered, as are the others
	Median   float64 `json:"median_seconds"`
	Max      float64 `json:"max_seconds"`
	// Seconds are all answers, in order.
	Seconds []float64 `json:"seconds"`
	// LastError is why the last one that has none got none.
	LastError string `json:"last_error,omitempty"`
}

// sum sums up the answers.
func (p *Pings) sum() {
	p.Answered = len(p.Seconds)
	if p.Answered == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(p.Seconds))
	n := len(sorted)
	p.Min, p.Max = sorted[0], sorted[n-1]
	p.Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// A Change is something that has happened to a way's path.
type Change struct {
	At   time.Time `json:"at"`
	Lost string    `json:"lost,omitempty"`         // why there is none any more
	Down float64   `json:"down_seconds,omitempty"` // how long there was none, where there is another one now
}

// failed reports whether a step of the way has.
func (w *Way) failed() bool {
	return slices.ContainsFunc(w.Steps, func(s Step) bool { return s.Problem != nil })
}
