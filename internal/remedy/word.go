// Package remedy owns what a failure is called and what a person can do about it: the
// word under which logs, metrics, audit logs and culvert ping have an error, and for each
// word that somebody can act on one sentence. docs/operations.md has the same sentences,
// which a test holds.
//
// It does not say who is told, and knows nothing of the refusals that a relay's own
// operator reads in the relay's log.
package remedy

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// Words, beside the names of codes, for what goes wrong on this side alone and so has
// no code on the wire.
const (
	Handshake     = "handshake"      // the connection ended in the handshake, and nobody has said why
	WrongIdentity = "wrong_identity" // another identity answered than the wanted one
	Version       = "version"        // the peer speaks another version of the protocol
	Cancelled     = "cancelled"      // nobody wants it any more
	Ended         = "ended"          // a path that was reset or closed without a word
	Unknown       = "unknown"        // a code that has no name here
)

// Words returns all words that are no code's name, in no order. The slice is the
// caller's.
func Words() []string {
	return []string{Handshake, WrongIdentity, Version, Cancelled, Ended, Unknown}
}

// Word returns what err is called: a code's name or one of the words above, so that
// there are only so many, whatever a peer says. It is "ok" for nil and for a channel that
// its peer has closed cleanly, and "" for an error that says nothing more than that
// something did not work.
func Word(err error) string {
	var (
		lost    *channel.LostError
		refused *channel.RefusedError
		closed  *channel.CloseError
		own     *tunnel.ClosedError
		stream  *tunnel.RefusedError
		wrong   *channel.IdentityError
		version *channel.VersionError
		peer    *channel.PeerError
		step    *channel.HandshakeError
	)
	switch {
	case err == nil, errors.Is(err, tunnel.ErrClosed):
		return code.OK.String()
	case errors.As(err, &lost):
		return Name(lost.Code)
	case errors.As(err, &refused):
		return Name(refused.Code)
	case errors.As(err, &closed):
		return Name(closed.Code)
	case errors.As(err, &own):
		return Name(own.Code)
	case errors.As(err, &stream):
		return Name(stream.Code)
	case errors.As(err, &wrong):
		return WrongIdentity
	case errors.As(err, &version):
		return Version
	case errors.As(err, &peer):
		return Name(peer.Code)
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.code.String()
		}
	}
	switch {
	case IsTimeout(err):
		return code.Timeout.String()
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.As(err, &step):
		return Handshake
	}
	return ""
}

// sentinels are errors that stand for a code; never written.
var sentinels = []struct {
	err  error
	code code.Code
}{
	{identity.ErrRolledBack, code.RolledBack},
	{identity.ErrDiverged, code.Diverged},
	{channel.ErrDead, code.Dead},
	{channel.ErrKeyExhausted, code.KeyExhausted},
	{channel.ErrProtocol, code.Protocol},
}

// Name returns the code's name, and one word for all codes without one: a peer must
// not be able to fill a metric with labels.
func Name(c code.Code) string {
	if !c.Known() {
		return Unknown
	}
	return c.String()
}

// IsTimeout reports whether err says that this side has waited for too long.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}
