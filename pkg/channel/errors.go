package channel

import (
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

var (
	// ErrDead ends a Conn on which nothing was received for too long.
	ErrDead = errors.New("nothing received from the peer for too long")
	// ErrKeyExhausted ends a Conn that has carried 512 GiB under one key.
	ErrKeyExhausted = errors.New("too many bytes under one key")
	// ErrProtocol is wrapped by errors that say the peer broke the protocol.
	ErrProtocol = errors.New("peer broke the protocol")
	// ErrDetached is returned by a Conn that has been given up.
	ErrDetached = errors.New("conn is detached")

	errPathGone = errors.New("path was given up")
)

// A HandshakeError says which step of a handshake failed. Step is a stable
// word, fit for a metric label: preamble, version, message 1, message 2,
// message 3, identity, request.
type HandshakeError struct {
	Step string
	Err  error
	// Peer is who was turned away, where that was proven before the handshake
	// failed: it holds the static key, and its identity verifies. Else nil.
	Peer *Peer
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("handshake failed at %s: %v", e.Step, e.Err)
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// An IdentityError says that the peer proved another identity than the wanted
// one. Nothing about this side was revealed to it.
type IdentityError struct {
	Want, Got identity.Identifier
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("peer proves to be %s, wanted %s", e.Got, e.Want)
}

// A PeerError says why a peer is not admitted that has proven its identity, by
// [LocalConfig.Admit]. The peer is told the code and the text.
type PeerError struct {
	Code code.Code
	Err  error
}

func (e *PeerError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *PeerError) Unwrap() error { return e.Err }

// A VersionError says that the peer speaks another version of the protocol.
type VersionError struct {
	Highest byte // the peer's highest version
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("peer speaks protocol version %d at most, this side %d: upgrade the older one", e.Highest, version)
}

// A CloseError is an authenticated end that was not a clean one.
type CloseError struct {
	Code   code.Code
	Reason string // the peer's words; printable, at most 1 KiB
}

func (e *CloseError) Error() string {
	return withReason(fmt.Sprintf("peer closed: %s", e.Code), e.Reason)
}

// A RefusedError is the peer's authenticated refusal after the handshake.
type RefusedError struct {
	Code   code.Code
	Reason string // the peer's words; printable, at most 1 KiB
}

func (e *RefusedError) Error() string {
	return withReason(fmt.Sprintf("peer refuses: %s", e.Code), e.Reason)
}

func withReason(s, reason string) string {
	if reason == "" {
		return s
	}
	return s + ": " + reason
}
