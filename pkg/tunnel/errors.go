package tunnel

import (
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/pkg/code"
)

var (
	// ErrDraining is returned by Open when the peer wants no more streams.
	ErrDraining = errors.New("peer is draining")
	// ErrClosed ends a session whose peer has closed the channel cleanly.
	ErrClosed = errors.New("peer closed the channel")
	// ErrTooMany is returned by Open at the session's limit of streams.
	ErrTooMany = errors.New("session has too many streams")
	// ErrUsedUp is returned by Open when the session has no more numbers for
	// streams: it is good for those that it has, and others need another one.
	ErrUsedUp = errors.New("session has no more numbers for streams")

	errProtocol = errors.New("peer broke the tunnel's protocol")
)

// A ClosedError ends a session that this side has closed, and says why.
type ClosedError struct {
	Code   code.Code
	Reason string
}

func (e *ClosedError) Error() string { return fmt.Sprintf("closed here: %s: %s", e.Code, e.Reason) }

// A RefusedError is the accepting side's answer instead of a stream.
type RefusedError struct {
	Code   code.Code
	Reason string // the peer's words; printable, at most 1 KiB
}

func (e *RefusedError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("stream refused: %s", e.Code)
	}
	return fmt.Sprintf("stream refused: %s: %s", e.Code, e.Reason)
}

// A ResetError says that one side ended the stream other than cleanly.
type ResetError struct {
	Code   code.Code
	Remote bool // the peer did
}

func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("stream reset by peer: %s", e.Code)
	}
	return fmt.Sprintf("stream reset: %s", e.Code)
}

// A LossError says that the stream ended because its session did.
type LossError struct {
	Cause error
}

func (e *LossError) Error() string { return fmt.Sprintf("stream lost: %v", e.Cause) }

// Unwrap returns why the session ended.
func (e *LossError) Unwrap() error { return e.Cause }

// CodeOf returns the code under which logs and metrics count err, as returned
// by a stream: OK for nil.
func CodeOf(err error) code.Code {
	var refused *RefusedError
	var reset *ResetError
	var loss *LossError
	switch {
	case err == nil:
		return code.OK
	case errors.As(err, &refused):
		return refused.Code
	case errors.As(err, &reset):
		return reset.Code
	case errors.As(err, &loss):
		return code.ChannelLost
	case errors.Is(err, ErrDraining):
		return code.Draining
	case errors.Is(err, ErrTooMany), errors.Is(err, ErrUsedUp):
		return code.Limit
	case errors.Is(err, errProtocol):
		return code.Protocol
	default:
		return code.Aborted
	}
}
