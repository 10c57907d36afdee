package identity

import (
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// identifierLen is the length of an identifier's text: 256 bits in characters
// of 5 bits, rounded up.
const identifierLen = 52

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// An Identifier names an identity for as long as it lives, through all
// rotations of its key: the SHA-256 of its history's first change. It is
// public and comparable. The zero Identifier is nobody's.
type Identifier [32]byte

// ParseIdentifier reads the 52 characters that [Identifier.String] prints and
// nothing else, not even another spelling of the same bits. The error says
// what is wrong and shows at most one character of s, which could be a secret
// pasted into the wrong place.
func ParseIdentifier(s string) (Identifier, error) {
	if s == "" {
		return Identifier{}, errors.New("identifier is empty")
	}
	for i, r := range s {
		switch {
		case strings.ContainsRune(alphabet, r):
		case r >= 'A' && r <= 'Z':
			return Identifier{}, fmt.Errorf("identifier has the upper-case %q at position %d: write it in lower case", r, i+1)
		default:
			return Identifier{}, fmt.Errorf("identifier has %q at position %d: only a to z and 2 to 7 can occur", r, i+1)
		}
	}
	if len(s) != identifierLen {
		return Identifier{}, fmt.Errorf("identifier has %d characters, want %d", len(s), identifierLen)
	}
	// 52 characters hold 260 bits: the last 4 carry nothing and are zero, so
	// that an identifier has one spelling.
	if last := s[identifierLen-1]; last != 'a' && last != 'q' {
		return Identifier{}, fmt.Errorf("identifier ends in %q, want 'a' or 'q': its last character is mistyped", last)
	}
	var id Identifier
	if _, err := encoding.Decode(id[:], []byte(s)); err != nil {
		return Identifier{}, fmt.Errorf("reading identifier: %w", err)
	}
	if id.IsZero() {
		return Identifier{}, errors.New("identifier is all zero, which no identity has")
	}
	return id, nil
}

// String returns the identifier's 52 characters.
func (id Identifier) String() string { return encoding.EncodeToString(id[:]) }

// IsZero reports whether id is the zero Identifier, which stands for none.
func (id Identifier) IsZero() bool { return id == Identifier{} }

// MarshalText returns what [Identifier.String] does. It does not fail.
func (id Identifier) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is [ParseIdentifier]; on an error id stays as it was.
func (id *Identifier) UnmarshalText(text []byte) error {
	parsed, err := ParseIdentifier(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
