package node

import (
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// MaxBody is how many bytes a message's body may have.
const MaxBody = 16 << 20

// maxHops is how many addresses, of workers that forward and of transports, one
// message passes at most: what goes round in a circle ends there.
const maxHops = 64

// A Message is what a worker gets. It and its Body are the worker's; the routes are
// shared and not to be changed.
type Message struct {
	// Onward is the rest of the way, for a worker that forwards.
	Onward Route
	// Return leads back to who sent it; empty where nobody wants an answer.
	Return Route
	// Body is what the sender has sent: on one node the very bytes.
	Body []byte
	// From says how it has come to this node.
	From Origin

	id      uint64 // of a request and its reply, 0 of others
	kind    kind
	hops    uint8
	vouched uint8    // addresses of the onward route that a hop or worker of this node has named
	via     *link    // it has come by; nil from this node
	under   *link    // via, until it has its place on this node or in what goes on; see land
	stream  *stream  // its body, where that goes on as it comes; else nil
	request *pending // that it is, until it has left its sender; else nil
	awaited *waiting // of the worker that asks it; nil: none, or not on this node
}

// A kind says what a message is.
type kind uint8

const (
	plain  kind = 0
	reply  kind = 1 // answers the request with its id
	failed kind = 2 // tells of a message that was lost; the body is a notice
)

// An Origin is how a message has come to a node. The zero Origin is the node itself.
type Origin struct {
	// Outside is true of what has come from another node.
	Outside bool
	// Peer is who holds the other end of the channel that it has come by, nil where
	// it was none. Attributes are the peer's, as [Config.Attributes] has proven them. Both
	// are shared by many messages: nobody changes them.
	Peer       *channel.Peer
	Attributes map[string]string
	// Carried is true where the peer only passes on what another node has sent it:
	// then Peer says who carries, and nobody who speaks.
	Carried bool
}

// A notice is the body of a message that tells of a loss.
type notice struct {
	Code   uint16 `cbor:"1,keyasint"`
	At     string `cbor:"2,keyasint"` // the address that it was lost at
	Reason string `cbor:"3,keyasint"`
}

// lost returns what tells m's sender of err, nil where nobody is to be told.
func (m *Message) lost(err *DeliveryError) *Message {
	if m.kind == failed || len(m.Return) == 0 {
		return nil
	}
	word := &Message{Onward: m.Return, Body: err.encode(), kind: failed, hops: maxHops}
	if m.kind == plain { // the id of an answer is its receiver's
		word.id = m.id
	}
	return word
}

// size is what a message counts in a mailbox.
func (m *Message) size() int { return len(m.Body) + 64 }

// answer returns the message that goes back to m's sender.
func (m *Message) answer(from Route, body []byte) *Message {
	a := &Message{Onward: m.Return, Return: from, Body: body, hops: maxHops}
	if m.id != 0 && m.kind == plain {
		a.kind, a.id = reply, m.id
	}
	return a
}

func checkBody(body []byte) error {
	if len(body) > MaxBody {
		return failure(code.Limit, "", "a body has %d bytes, and may have %d", len(body), MaxBody)
	}
	return nil
}
