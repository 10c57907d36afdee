package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

// ErrClosed is returned for what is asked of a node that is closed.
var ErrClosed = errors.New("node is closed")

// A DeliveryError says that a message was not delivered, and why:
//
//	no_worker       nobody is at the address, or waits for the answer any more
//	worker_denied   the worker, hop or node does not allow the message
//	worker_stopped  the worker has stopped before it was the message's turn
//	worker_failed   the worker has returned an error, which Reason is, or has panicked
//	too_many_hops   the message has passed 64 hops, or a route has more than 16 addresses
//	circle          the worker waits itself, by way of others perhaps, for who sends or asks
//	link_lost       the conn to another node has ended; the message may yet have arrived
//	unreachable     the conn to another node could not be made
//	busy            a node has as many channels as it may
//	register_denied the relay does not let the node have the name
//	replaced        the address, or the name at the relay, is taken
//	limit           the body is too large, or the message gave way to others that waited
//	timeout         the next hop has taken nothing more, or no answer has come, in time
//	protocol        the route cannot be, or another node's words cannot be read
//
// Another node's errors are its word, as good as the way that they have come by.
type DeliveryError struct {
	Code   code.Code // docs/protocol.md has all of them
	At     Address   // where; "" on the way: no worker's place, or the sender's own node
	Reason string    // printable; of another node, that one's words
}

// Error says what happened, and where.
func (e *DeliveryError) Error() string {
	if e.At == "" {
		return fmt.Sprintf("message not delivered: %s (%s)", e.Reason, e.Code)
	}
	return fmt.Sprintf("message not delivered at %s: %s (%s)", code.Printable(string(e.At)), e.Reason, e.Code)
}

// Is reports whether e is target to [errors.Is]: a timeout is [context.DeadlineExceeded],
// whose deadline it may ever be, the sender's own or [Config.Patience].
func (e *DeliveryError) Is(target error) bool {
	return target == context.DeadlineExceeded && e.Code == code.Timeout
}

func failure(c code.Code, at Address, format string, args ...any) *DeliveryError {
	return &DeliveryError{Code: c, At: at, Reason: fmt.Sprintf(format, args...)}
}

// maxNotice is how many bytes a notice may have.
const maxNotice = 2 * code.MaxReason

// encode returns a notice's bytes.
func (e *DeliveryError) encode() []byte {
	b, err := canon.Marshal(notice{Code: uint16(e.Code), At: string(e.At), Reason: bounded(e.Reason)})
	if err != nil {
		return nil // a notice without words
	}
	return b
}

// bounded returns words that may be another's as they can be told.
func bounded(reason string) string { return code.CutReason(code.Printable(reason)) }

// decodeNotice never fails: what does not decode is told as that.
func decodeNotice(b []byte) *DeliveryError {
	var n notice
	if len(b) > maxNotice || canon.Unmarshal(b, &n) != nil || Address(n.At).Check() != nil && n.At != "" {
		return failure(code.Protocol, "", "another node has told of a loss, in words that cannot be read")
	}
	c := code.Code(n.Code)
	if c == code.OK {
		c = code.Internal // no loss is a clean end
	}
	return &DeliveryError{Code: c, At: Address(n.At), Reason: bounded(n.Reason)}
}

// asDelivery returns err as a DeliveryError, of that code if it is another error.
func asDelivery(err error, c code.Code, at Address) *DeliveryError {
	var de *DeliveryError
	if errors.As(err, &de) {
		return de
	}
	return failure(c, at, "%s", bounded(err.Error()))
}
