package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// An Action is what a peer asks for. Its text is what expressions see.
type Action string

// The actions.
const (
	Open     Action = "open"     // a stream to a service of an outlet
	Register Action = "register" // to offer an outlet at a relay
	Connect  Action = "connect"  // to be joined to an outlet by a relay
	Extend   Action = "extend"   // to be carried on to another relay
)

// Actions returns all actions.
func Actions() []Action { return []Action{Open, Register, Connect, Extend} }

// A Peer is who asks, as proven.
type Peer struct {
	ID identity.Identifier
	// Attr is what the peer's credentials say of it. It is read during the call
	// only. An expression denies a peer that has more than MaxAttributes, or a
	// name or value longer than its bound.
	Attr map[string]string
	// Unclear is why nothing can be said of the peer's attributes, for people: its
	// credentials contradict each other, say. An expression that looks at them denies
	// then, whatever it asks: the peer is not one that has none. "" if there is nothing.
	Unclear string
}

// A Request is what a peer asks for.
type Request struct {
	Peer    Peer
	Action  Action
	Service string              // of Open: the service's name
	Target  identity.Identifier // of Connect: the wanted outlet; zero: none in particular, for which expressions see ""
	To      string              // of Extend: host:port, canonical as in a hop's URL
	Now     time.Time           // when; zero means the time of the call
}

// A Decision is a policy's answer. The zero Decision denies.
type Decision struct {
	Allowed bool
	// Reason explains a denial, in one line of at most MaxReason bytes that is
	// safe for a log. It shows parts of the policy and what was seen of the
	// peer: it is for those who wrote the policy, not for the peer.
	Reason string
}

// A Policy says who may do something. It does not change and may be used by
// several goroutines. A nil Policy allows nobody.
type Policy struct {
	listed map[identity.Identifier]struct{} // of a list
	ids    []identity.Identifier            // the same in the order given
	expr   *expression                      // nil for a list
}

// List returns the policy that allows those peers, and nobody if there are none.
func List(ids ...identity.Identifier) *Policy {
	p := &Policy{listed: make(map[identity.Identifier]struct{}, len(ids)), ids: slices.Clone(ids)}
	for _, id := range ids {
		p.listed[id] = struct{}{}
	}
	return p
}

// Compile returns the policy that allows what the expression is true for. It
// can be asked about that action only. The error is an [Errors] that says where
// in the text the faults are: syntax, types, variables that do not apply to the
// action, a result that is no bool, and a cost that has no bound or too high a
// one.
func Compile(action Action, text string) (*Policy, error) {
	e, err := compile(action, text, defaultLimits)
	if err != nil {
		return nil, err
	}
	return &Policy{expr: e}, nil
}

// IDs returns the identifiers of a list, in the order given; nil for an
// expression.
func (p *Policy) IDs() []identity.Identifier {
	if p == nil {
		return nil
	}
	return slices.Clone(p.ids)
}

// Expression returns the text of an expression, "" for a list.
func (p *Policy) Expression() string {
	if p == nil || p.expr == nil {
		return ""
	}
	return p.expr.text
}

// Uses reports whether the policy looks at a variable, such as "to". A list
// looks at peer.id.
func (p *Policy) Uses(variable string) bool {
	switch {
	case p == nil:
		return false
	case p.expr == nil:
		return variable == varID
	}
	return slices.Contains(p.expr.uses, variable)
}

// Empty reports whether the policy can allow nobody: it is nil or a list of none.
func (p *Policy) Empty() bool { return p == nil || p.expr == nil && len(p.ids) == 0 }

// Allows is [Policy.Decide] without the reason. A list's answer allocates
// nothing.
func (p *Policy) Allows(r *Request) bool {
	switch {
	case p == nil:
		return false
	case p.expr == nil:
		return p.lists(r.Peer.ID)
	}
	_, refused := p.expr.eval(r)
	return refused == nil
}

// Decide answers a request. Only a denial's reason costs more than Allows.
func (p *Policy) Decide(r *Request) Decision {
	switch {
	case p == nil:
		return Decision{Reason: "nobody is allowed: there is no policy"}
	case p.expr != nil:
		return p.expr.decide(r)
	case p.lists(r.Peer.ID):
		return Decision{Allowed: true, Reason: "identifier is on the list"}
	case len(p.ids) == 0:
		return Decision{Reason: "nobody is allowed: the list is empty"}
	}
	return Decision{Reason: fmt.Sprintf("identifier %s is not on the list", r.Peer.ID)}
}

// lists reports whether a list has the identifier. The zero Identifier is
// nobody's and on no list.
func (p *Policy) lists(id identity.Identifier) bool {
	_, ok := p.listed[id]
	return ok && !id.IsZero()
}
