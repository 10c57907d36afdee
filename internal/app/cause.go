package app

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/target"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// Labels, beside the names of codes, for what goes wrong on this side alone
// and so has no code on the wire.
const (
	labelHandshake     = "handshake"
	labelWrongIdentity = "wrong_identity"
	labelVersion       = "version"
	labelCancelled     = "cancelled"
)

// label returns the word under which logs and metrics count err: a code's name
// or one of the labels above, so that there are only so many. other is for an
// error that says nothing more than that it did not work.
func label(err error, other code.Code) string {
	var (
		refused *channel.RefusedError
		closed  *channel.CloseError
		own     *tunnel.ClosedError
		wrong   *channel.IdentityError
		version *channel.VersionError
		step    *channel.HandshakeError
		lost    *channel.LostError
		peer    *channel.PeerError
	)
	switch {
	case err == nil, errors.Is(err, tunnel.ErrClosed):
		return code.OK.String()
	case errors.As(err, &lost):
		return known(lost.Code)
	case errors.As(err, &refused):
		return known(refused.Code)
	case errors.As(err, &closed):
		return known(closed.Code)
	case errors.As(err, &own):
		return known(own.Code)
	case errors.As(err, &wrong):
		return labelWrongIdentity
	case errors.As(err, &version):
		return labelVersion
	case errors.As(err, &peer):
		return known(peer.Code)
	case errors.Is(err, identity.ErrRolledBack):
		return code.RolledBack.String()
	case errors.Is(err, identity.ErrDiverged):
		return code.Diverged.String()
	case errors.Is(err, channel.ErrDead):
		return code.Dead.String()
	case errors.Is(err, channel.ErrKeyExhausted):
		return code.KeyExhausted.String()
	case errors.Is(err, channel.ErrProtocol):
		return code.Protocol.String()
	case errors.Is(err, errShutdown):
		return code.Shutdown.String()
	case isTimeout(err):
		return code.Timeout.String()
	case errors.Is(err, context.Canceled):
		return labelCancelled
	case errors.As(err, &step):
		return labelHandshake
	default:
		return other.String()
	}
}

// known returns the code's name, and one word for all codes without one: a
// peer must not be able to fill a metric with labels.
func known(c code.Code) string {
	if !c.Known() {
		return "unknown"
	}
	return c.String()
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
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
	case isTimeout(err):
		return code.TargetTimeout
	case errors.As(err, &secure):
		return code.TargetTLS
	default:
		return code.TargetUnreachable
	}
}
