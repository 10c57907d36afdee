package identity

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"time"
)

// An Identity is a private key and its history. It is immutable, safe for
// concurrent use, and prints without its key. A usable one comes from [New],
// [Identity.Rotate], [RotateFile] or [ReadFile].
type Identity struct {
	// key returns the private key. It is a func because fmt and other printers
	// call no methods on what lies in unexported fields of other structs; of a
	// func they print an address at most, while fmt follows even pointers
	// there for a verb that does not fit.
	key     func() ed25519.PrivateKey
	history *History
}

// hold makes an Identity of a key and its history.
func hold(key ed25519.PrivateKey, h *History) *Identity {
	return &Identity{key: func() ed25519.PrivateKey { return key }, history: h}
}

// New makes an identity whose key holds from now on for [Validity].
func New(now time.Time) (*Identity, error) { return NewFor(now, Validity) }

// NewFor is New for a key that holds for validity, [MinValidity] to [Validity].
// It has to be replaced, by [Identity.RotateFor], before it expires: nothing
// continues an identity whose key has.
func NewFor(now time.Time, validity time.Duration) (*Identity, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("making identity: %w", err)
	}
	return newWith(key, now, validity)
}

// newWith is NewFor with a given key.
func newWith(key ed25519.PrivateKey, now time.Time, validity time.Duration) (*Identity, error) {
	var none *History
	h, err := none.extend(key, nil, now, validity)
	if err != nil {
		return nil, fmt.Errorf("making identity: %w", err)
	}
	return hold(key, h), nil
}

// Rotate returns id with a new key, which holds from now on for [Validity], and
// the same identifier. id itself does not change, but must not be used any more
// once the new one is. Rotating fails when the current key has expired or the
// history is full. It does not undo a theft of the current key.
func (id *Identity) Rotate(now time.Time) (*Identity, error) { return id.RotateFor(now, Validity) }

// RotateFor is Rotate to a key that holds for validity, [MinValidity] to
// [Validity].
func (id *Identity) RotateFor(now time.Time, validity time.Duration) (*Identity, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("rotating identity %s: %w", id.Identifier(), err)
	}
	return id.rotateTo(key, now, validity)
}

// rotateTo is RotateFor with a given key.
func (id *Identity) rotateTo(key ed25519.PrivateKey, now time.Time, validity time.Duration) (*Identity, error) {
	if id.history.Len() >= MaxChanges {
		return nil, fmt.Errorf("rotating identity %s: its history is full with %d changes: make a new identity", id.Identifier(), MaxChanges)
	}
	if err := id.history.CheckTime(now, 0); err != nil {
		return nil, fmt.Errorf("rotating: %w", err)
	}
	h, err := id.history.extend(key, id.key(), now, validity)
	if err != nil {
		return nil, fmt.Errorf("rotating identity %s: %w", id.Identifier(), err)
	}
	return hold(key, h), nil
}

// Identifier returns the identity's identifier.
func (id *Identity) Identifier() Identifier { return id.history.Identifier() }

// History returns the identity's public part.
func (id *Identity) History() *History { return id.history }

// String names the identity without its key. Like Format it has a value
// receiver, so that a copy is redacted too.
func (id Identity) String() string {
	if id.history == nil {
		return "identity(none)"
	}
	return "identity(" + id.history.Identifier().String() + ", private key redacted)"
}

// Format prints [Identity.String] for every verb and flag, %#v and %x too.
func (id Identity) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, id.String()) // fmt keeps a failed write's error itself
}
