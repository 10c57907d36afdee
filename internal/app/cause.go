package app

import (
	"errors"
	"syscall"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/internal/target"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// label returns the word under which logs and metrics count err, one of package
// remedy's, so that there are only so many. other is for an error that says nothing more
// than that it did not work.
func label(err error, other code.Code) string {
	switch word := remedy.Word(err); {
	case errors.Is(err, errShutdown) && (word == "" || word == remedy.Cancelled || word == remedy.Handshake || remedy.IsTimeout(err)):
		return code.Shutdown.String()
	case word != "":
		return word
	}
	return other.String()
}

// known returns the code's name, and one word for all codes without one.
func known(c code.Code) string { return remedy.Name(c) }

// remedied adds to what is logged about a code what to do, for what a person can do
// something about.
func remedied(fields []zap.Field, word string) []zap.Field {
	if text := remedy.Of(word, remedy.Facts{}); text != "" {
		fields = append(fields, zap.String("remedy", text))
	}
	return fields
}

// streamCode says how a copy between a stream, side a, and a socket, side b,
// ended: with the code that the other side was told or has told, and for
// anything but a clean end a reason for the log. socketReset is the code for a
// failure of the socket.
func streamCode(err error, socketReset code.Code) (c code.Code, reason string) {
	if err == nil {
		return code.OK, ""
	}
	var (
		refused *tunnel.RefusedError
		reset   *tunnel.ResetError
		loss    *tunnel.LossError
		side    *pump.Error
	)
	switch {
	// The stream's own errors come first: a loss wraps what ended the path,
	// which can look like the socket's error.
	case errors.As(err, &refused):
		return refused.Code, refused.Reason
	case errors.As(err, &reset):
		return reset.Code, reset.Error()
	case errors.As(err, &loss):
		return code.ChannelLost, loss.Error()
	case errors.Is(err, errShutdown):
		return code.Shutdown, errShutdown.Error()
	case errors.As(err, &side) && side.Side == pump.B && errors.Is(err, target.ErrTruncated):
		return code.TargetTLS, side.Err.Error()
	case errors.As(err, &side) && side.Side == pump.B:
		return socketReset, side.Err.Error()
	default:
		return code.Aborted, err.Error()
	}
}

// dialCode says why a target could not be dialled, if it could not.
func dialCode(err error) code.Code {
	var secure *target.TLSError
	switch {
	case err == nil:
		return code.OK
	case errors.Is(err, syscall.ECONNREFUSED):
		return code.TargetRefused
	case remedy.IsTimeout(err):
		return code.TargetTimeout
	case errors.As(err, &secure):
		return code.TargetTLS
	default:
		return code.TargetUnreachable
	}
}
