package credential

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
)

// A Secret is bytes that are not to be shown: a ticket's secret, or a token.
// It prints as what it is, without them, for every verb and flag, and in the
// encodings of the standard library it is empty. The zero Secret is empty.
type Secret struct {
	// reveal returns the bytes. It is a func because fmt and other printers
	// call no methods on what lies in unexported fields of other structs, and
	// print an address, at most, of a func.
	reveal func() []byte
}

// NewSecret returns a Secret of a copy of b.
func NewSecret(b []byte) Secret {
	b = bytes.Clone(b)
	return Secret{func() []byte { return b }}
}

// randomSecret draws n bytes.
func randomSecret(n int) Secret {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return Secret{func() []byte { return b }}
}

// Reveal returns the bytes, a copy, for where they have to go in the clear.
func (s Secret) Reveal() []byte { return bytes.Clone(s.bytes()) }

func (s Secret) bytes() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// Len returns the number of bytes.
func (s Secret) Len() int { return len(s.bytes()) }

// Equal reports whether s and o have the same bytes, in a time that depends on
// their lengths only.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.bytes(), o.bytes()) == 1 }

// String says that there is a secret, and no more.
func (s Secret) String() string { return "secret(redacted)" }

// Format prints [Secret.String] for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String()) // fmt keeps a failed write's error itself
}

const ticketHashLabel = "culvert ticket secret v1\x00"

// A TicketHash is what an authority keeps of a ticket's secret. It does not
// help to find the secret, which is random and long.
type TicketHash [32]byte

// HashTicket returns what to keep of the secret of the ticket id: SHA-256 over
// a label, the id and the secret.
func HashTicket(id TicketID, s Secret) TicketHash {
	h := sha256.New()
	h.Write([]byte(ticketHashLabel))
	h.Write(id[:])
	h.Write(s.bytes())
	return TicketHash(h.Sum(nil))
}

// Matches reports, in constant time, whether s is the secret of the ticket id
// that was hashed.
func (h TicketHash) Matches(id TicketID, s Secret) bool {
	got := HashTicket(id, s)
	return subtle.ConstantTimeCompare(got[:], h[:]) == 1
}
