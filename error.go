package culvert

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// An Error says why there is no stream, or how one has ended other than cleanly. It is in
// what Dial, Listen, Accept, Read and Write return: use [errors.As].
type Error struct {
	// Code says what it was, in the words that both sides' logs and metrics use: of a
	// dial for example stream_denied, service_unknown, connect_denied, not_registered,
	// unreachable or timeout, of a stream aborted, channel_lost or shutdown.
	Code code.Code
	// Reason is one printable line for people; the other side's words, where it has
	// refused something.
	Reason string
	// Err is what is behind it; nil if there is nothing.
	Err error
}

// Error returns the code and the reason.
func (e *Error) Error() string {
	if e.Reason == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Reason
}

// Unwrap returns what is behind it.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether it is only that something did not come in time.
func (e *Error) Timeout() bool {
	return e.Code == code.Timeout || errors.Is(e.Err, context.DeadlineExceeded)
}

// Temporary is that of [net.Error], and reports false.
func (e *Error) Temporary() bool { return false }

// Is reports whether target is [syscall.ECONNRESET] and e is the end of a stream that
// was open: what a TCP connection would have had in its place.
func (e *Error) Is(target error) bool {
	var reset *tunnel.ResetError
	var lost *tunnel.LossError
	return target == syscall.ECONNRESET && (errors.As(e.Err, &reset) || errors.As(e.Err, &lost))
}

var _ net.Error = (*Error)(nil)

// asError returns what internal/app says as what this package does.
func asError(err error) error {
	var f *app.Failure
	if errors.As(err, &f) {
		return &Error{Code: f.Code, Reason: f.Reason, Err: f.Err}
	}
	return err
}

// opError returns err as what a net.Conn's or net.Listener's operation returns.
func opError(op string, source, addr *Addr, err error) error {
	oe := &net.OpError{Op: op, Net: network, Err: err}
	if source != nil {
		oe.Source = source
	}
	if addr != nil {
		oe.Addr = addr
	}
	return oe
}

// ofStream returns how a stream has ended as an *Error, and what only ends one call as
// it is: a deadline, or the conn's own end.
func ofStream(err error) error {
	if !isEnd(err) && isOwn(err) {
		return err
	}
	return &Error{Code: tunnel.CodeOf(err), Reason: code.Printable(err.Error()), Err: &endError{err}}
}

// isEnd reports whether err is how a stream has ended.
func isEnd(err error) bool {
	var (
		refused *tunnel.RefusedError
		reset   *tunnel.ResetError
		lost    *tunnel.LossError
	)
	return errors.As(err, &refused) || errors.As(err, &reset) || errors.As(err, &lost) || tunnel.CodeOf(err) == code.Protocol
}

// isOwn reports whether err is what a conn says of itself.
func isOwn(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// An endError is how a stream has ended. What the path under it has ended with may be in
// it, and must not be taken for the conn's: that a connection to a relay is at its end,
// was closed or has timed out says nothing of the kind about the stream.
type endError struct{ err error }

// Error returns what has ended the stream, and by what.
func (e *endError) Error() string { return e.err.Error() }

// As is that of the error behind it.
func (e *endError) As(target any) bool { return errors.As(e.err, target) }

// Is is that of the error behind it, but for what is said of a conn alone.
func (e *endError) Is(target error) bool {
	switch target {
	case io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded:
		return false
	}
	return errors.Is(e.err, target)
}

// own reports whether err is one that a stream itself returns, and not what a reader or
// writer does that it was given.
func own(err error) bool {
	var oe *net.OpError
	return err != nil && err != io.EOF && !errors.As(err, &oe) && (isEnd(err) || isOwn(err))
}
