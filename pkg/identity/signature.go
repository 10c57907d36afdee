package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxLabel is how long a label of [Identity.Sign] may be, in bytes.
const maxLabel = 64

// ownLabels is how the labels begin under which this package itself signs.
const ownLabels = "culvert identity "

// Sign returns the Ed25519 signature (RFC 8032) by the current key over label,
// one zero byte and message, as [Change.Verify] takes it. label says what the
// message is, so that no signature is one for anything else: 1 to 64 printable
// ASCII characters, which do not begin as the labels of this package do.
func (id *Identity) Sign(label string, message []byte) ([]byte, error) {
	if err := checkSignLabel(label); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sign(id.key(), label+"\x00", message), nil
}

func checkSignLabel(label string) error {
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("label has %d bytes, want 1 to %d", len(label), maxLabel)
	}
	if strings.ContainsFunc(label, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("label %q has characters other than printable ASCII", label)
	}
	if strings.HasPrefix(label, ownLabels) {
		return errors.New("label begins as those of identities themselves do")
	}
	return nil
}

// A Change is one change of a verified history: a key, and when it was the
// current one. A usable one comes from [History.Change].
type Change struct {
	Created  time.Time // inclusive
	Expires  time.Time // exclusive
	Replaced time.Time // when the next change was created; zero for the last change

	key ed25519.PublicKey
}

// Change returns the change of h that has the given hash, and reports whether
// there is one. The last one's hash is [History.LastHash].
func (h *History) Change(hash [32]byte) (Change, bool) {
	for i := range h.hashes {
		if h.hashes[i] != hash {
			continue
		}
		c := Change{
			Created: instant(h.changes[i].Created),
			Expires: instant(h.changes[i].Expires),
			key:     h.changes[i].Key,
		}
		if i+1 < len(h.changes) {
			c.Replaced = instant(h.changes[i+1].Created)
		}
		return c, true
	}
	return Change{}, false
}

// Key returns the change's public key, a copy.
func (c Change) Key() ed25519.PublicKey { return bytes.Clone(c.key) }

// Verify reports whether signature is what [Identity.Sign] makes of label and
// message while c is the last change. When that was is not in a signature: it
// has to be in the message, and be held against c's times.
func (c Change) Verify(label string, message, signature []byte) bool {
	return len(c.key) == ed25519.PublicKeySize && checkSignLabel(label) == nil &&
		len(signature) == ed25519.SignatureSize && signed(c.key, label+"\x00", message, signature)
}
