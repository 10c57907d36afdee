package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Hop is a place that messages pass on their way: it takes itself off the onward
// route, puts itself on the return route and carries on, without a mailbox of its
// own, so that nobody waits for others there. The zero Hop serves this node alone.
type Hop struct {
	// Allow says which messages from other nodes it carries, beside answers; nil means
	// none.
	Allow func(Origin) error
	// To are the addresses of transports and channels, as routes spell them, that it carries
	// messages from other nodes on to; beside them it takes answers back to where messages came from. Empty
	// means workers and hops of this node only, which decide for themselves.
	To []Address
}

type hop struct {
	Hop
	node    *Node
	address Address
}

// StartHop makes h serve at address, until [Node.Stop]. The error is as of
// [Node.Start].
func (n *Node) StartHop(address Address, h Hop) error {
	if err := address.checkChosen(); err != nil {
		return err
	}
	for _, a := range h.To {
		if err := a.Check(); err != nil {
			return err
		}
	}
	h.To = slices.Clone(h.To)
	return n.add(address, &hop{h, n, address})
}

// lead returns m as it goes on.
func (h *hop) lead(m *Message) (*Message, error) {
	// Answers reach only who waits for them; they go back by conns, and to no transport.
	answers := m.kind != plain && (len(m.Onward) == 1 || !m.Onward[1].isTransport())
	if m.From.Outside && !answers {
		if err := h.node.allowed(h.Allow, m.From, h.address); err != nil {
			return nil, err
		}
	}
	on, err := passed(m.onTo(), h.address, nil)
	if err != nil || len(on.Onward) == 0 {
		return on, err
	}
	next := on.Onward[0]
	switch {
	case slices.Contains(h.To, next):
		on.vouched = 1
	case m.From.Outside && next.isTransport():
		return nil, failure(code.WorkerDenied, h.address, "this hop does not carry on to %s", quoted(next))
	}
	return on, nil
}

// Anyone allows whatever comes from outside.
func Anyone(Origin) error { return nil }

// Peers allows those who hold the other end of a channel and prove to be one of ids.
// What such a peer only passes on for others is not its word, and is refused.
func Peers(ids ...identity.Identifier) func(Origin) error {
	ids = slices.Clone(ids)
	return func(from Origin) error {
		if err := speaks(from); err != nil {
			return err
		}
		if !slices.Contains(ids, from.Peer.Identifier) {
			return fmt.Errorf("%s is not on the list of those who may", from.Peer.Identifier)
		}
		return nil
	}
}

// Attribute allows those who hold the other end of a channel and prove, by a
// credential, an attribute of that name and value. See [Peers].
func Attribute(name, value string) func(Origin) error {
	return func(from Origin) error {
		if err := speaks(from); err != nil {
			return err
		}
		if from.Attributes[name] != value || value == "" {
			return fmt.Errorf("%s has no credential that says %s=%s", from.Peer.Identifier, code.Printable(name), code.Printable(value))
		}
		return nil
	}
}

// speaks says why a message is nobody's proven word.
func speaks(from Origin) error {
	switch {
	case from.Peer == nil:
		return errors.New("the message has come by no channel, so nobody is known to have sent it")
	case from.Carried:
		return fmt.Errorf("%s passes the message on for somebody else", from.Peer.Identifier)
	}
	return nil
}
