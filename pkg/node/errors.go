package node

import (
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

// ErrClosed is returned for what is asked of a node that is closed.
var ErrClosed = errors.New("node is closed")

// A DeliveryError says that a message was not delivered, and why: no_worker,
// worker_denied, worker_stopped, worker_failed, too_many_hops, circle, link_lost,
// limit, timeout or protocol.
type DeliveryError struct {
	Code   code.Code
	At     Address // where; "" where it is the sender's own node
	Reason string  // printable; of another node, that one's words
}

// Error says what happened, and where.
func (e *DeliveryError) Error() string {
	if e.At == "" {
		return fmt.Sprintf("message not delivered: %s (%s)", e.Reason, e.Code)
	}
	return fmt.Sprintf("message not delivered at %s: %s (%s)", code.Printable(string(e.At)), e.Reason, e.Code)
}

func failure(c code.Code, at Address, format string, args ...any) *DeliveryError {
	return &DeliveryError{Code: c, At: at, Reason: fmt.Sprintf(format, args...)}
}

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
	if len(b) > 2*code.MaxReason || canon.Unmarshal(b, &n) != nil || Address(n.At).Check() != nil && n.At != "" {
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
