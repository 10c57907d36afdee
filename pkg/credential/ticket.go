package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of a ticket.
const (
	MaxTicketRoutes = 8
	MaxRouteLen     = 2560 // bytes of a route's text: eight hops of the longest hosts
	MinTicketSecret = 16   // bytes
	MaxTicketSecret = 64   // bytes
	// MaxTicketLen is longer than any ticket's text, in characters.
	MaxTicketLen = 36 << 10

	ticketSecret = 32 // bytes of the secrets made here
)

// Why a text is not the ticket that was handed out. Neither says anything of
// whether the authority takes it.
var (
	ErrTicketTruncated = errors.New("ticket is cut off: copy all of it")
	ErrTicketDamaged   = errors.New("ticket is mistyped or damaged: copy it again")
)

const (
	ticketPrefix  = "culvert_ticket_"
	ticketVersion = "1_"
	ticketLabel   = "culvert ticket v1\x00"
	ticketSum     = 4 // bytes of the checksum
)

// The alphabet is that of identifiers: a ticket is one word to a shell, to YAML
// and to a double click.
var ticketEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// A TicketID names a ticket of an authority: 16 random bytes, no secret.
type TicketID [16]byte

// ParseTicketID reads what [TicketID.String] prints, and nothing else.
func ParseTicketID(text string) (TicketID, error) {
	id, err := parseHex16(text)
	if err != nil {
		return TicketID{}, fmt.Errorf("reading ticket id: %w", err)
	}
	return id, nil
}

// String returns the id's 32 lower-case hexadecimal digits.
func (id TicketID) String() string { return hex.EncodeToString(id[:]) }

// A Ticket is all that a new machine needs to become a member: whom to ask,
// where, and a secret that lets it in once. It prints without the secret.
type Ticket struct {
	Authority identity.Identifier
	Routes    []string // to the authority, best first, as text; at least one
	ID        TicketID
	Secret    Secret // 16 to 64 bytes
}

// A wireTicket is a ticket as it is encoded.
type wireTicket struct {
	Authority []byte   `cbor:"1,keyasint"`
	Routes    []string `cbor:"2,keyasint"`
	ID        []byte   `cbor:"3,keyasint"`
	Secret    []byte   `cbor:"4,keyasint"`
}

// NewTicket makes a ticket with a random id and secret. Whether the routes are
// routes is for the caller to check.
func NewTicket(authority identity.Identifier, routes []string) (Ticket, error) {
	t := Ticket{Authority: authority, Routes: append([]string(nil), routes...), Secret: randomSecret(ticketSecret)}
	_, _ = rand.Read(t.ID[:]) // never fails
	if err := t.check(); err != nil {
		return Ticket{}, fmt.Errorf("making ticket: %w", err)
	}
	return t, nil
}

// check says what is wrong with t, without its secret.
func (t Ticket) check() error {
	switch {
	case t.Authority.IsZero():
		return errors.New("its authority is the zero identifier, which is nobody's")
	case t.ID == TicketID{}:
		return errors.New("its id is all zero, which none is")
	case len(t.Routes) == 0 || len(t.Routes) > MaxTicketRoutes:
		return fmt.Errorf("it has %d routes, want 1 to %d", len(t.Routes), MaxTicketRoutes)
	case t.Secret.Len() < MinTicketSecret || t.Secret.Len() > MaxTicketSecret:
		return fmt.Errorf("its secret has %d bytes, want %d to %d", t.Secret.Len(), MinTicketSecret, MaxTicketSecret)
	}
	for i, r := range t.Routes {
		if r == "" || len(r) > MaxRouteLen {
			return fmt.Errorf("route %d has %d bytes, want 1 to %d", i+1, len(r), MaxRouteLen)
		}
		if strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("route %d has characters other than printable ASCII", i+1)
		}
	}
	return nil
}

// Encode returns the ticket's text, with the secret in it: letters, digits and
// underscores only. [ParseTicket] reads it.
func (t Ticket) Encode() (string, error) {
	if err := t.check(); err != nil {
		return "", fmt.Errorf("encoding ticket: %w", err)
	}
	body, err := canon.Marshal(wireTicket{t.Authority[:], t.Routes, t.ID[:], t.Secret.bytes()})
	if err != nil {
		return "", fmt.Errorf("encoding ticket: %w", err)
	}
	raw := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
	raw = append(raw, body...)
	raw = append(raw, ticketChecksum(raw)...)
	return ticketPrefix + ticketVersion + ticketEncoding.EncodeToString(raw), nil
}

// ticketChecksum returns what tells a ticket from a damaged one. Anybody can
// compute it: what lets in is the secret.
func ticketChecksum(raw []byte) []byte {
	sum := sha256.Sum256(append([]byte(ticketLabel), raw...))
	return sum[:ticketSum]
}

// ParseTicket reads a ticket's text. White space around it is passed over. An
// error shows no part of the text; it wraps [ErrTicketTruncated] or
// [ErrTicketDamaged] when the text is not what was handed out.
func ParseTicket(text string) (Ticket, error) {
	t, err := parseTicket(strings.Trim(text, " \t\r\n"))
	if err != nil {
		return Ticket{}, fmt.Errorf("reading ticket: %w", err)
	}
	return t, nil
}

func parseTicket(text string) (Ticket, error) {
	if len(text) > MaxTicketLen {
		return Ticket{}, fmt.Errorf("it has %d characters, more than %d", len(text), MaxTicketLen)
	}
	rest, ok := strings.CutPrefix(text, ticketPrefix)
	switch {
	case text == "":
		return Ticket{}, errors.New("it is empty")
	case !ok && strings.HasPrefix(ticketPrefix, text):
		return Ticket{}, ErrTicketTruncated
	case !ok:
		return Ticket{}, fmt.Errorf("it does not begin with %s: name a ticket that the authority has made", ticketPrefix)
	}
	rest, ok = strings.CutPrefix(rest, ticketVersion)
	switch {
	case !ok && strings.HasPrefix(ticketVersion, rest):
		return Ticket{}, ErrTicketTruncated
	case !ok:
		return Ticket{}, errors.New("it is of another version than 1: have the authority and this program of one version")
	}
	body, err := openTicket(rest)
	if err != nil {
		return Ticket{}, err
	}
	defer clear(body)
	return decodeTicket(body)
}

// openTicket decodes the characters behind the version and checks that none is
// missing or wrong. What it returns is the caller's to clear.
func openTicket(rest string) ([]byte, error) {
	for i := range len(rest) {
		if c := rest[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return nil, fmt.Errorf("%w: character %d is neither of a to z nor of 2 to 7", ErrTicketDamaged, len(ticketPrefix)+len(ticketVersion)+i+1)
		}
	}
	const head = 8 // characters, five bytes: the length is in the first two
	if len(rest) < head {
		return nil, ErrTicketTruncated
	}
	first, err := ticketEncoding.DecodeString(rest[:head])
	if err != nil {
		return nil, ErrTicketDamaged
	}
	length := int(binary.BigEndian.Uint16(first))
	want := ticketEncoding.EncodedLen(2 + length + ticketSum)
	if len(rest) < want {
		return nil, fmt.Errorf("%w: it has %d characters of %d", ErrTicketTruncated, len(rest), want)
	}
	raw, err := ticketEncoding.DecodeString(rest)
	if err != nil || len(rest) > want || ticketEncoding.EncodeToString(raw) != rest {
		clear(raw)
		return nil, ErrTicketDamaged
	}
	body, sum := raw[:2+length], raw[2+length:]
	if subtle.ConstantTimeCompare(sum, ticketChecksum(body)) != 1 {
		clear(raw)
		return nil, ErrTicketDamaged
	}
	return body[2:], nil
}

func decodeTicket(body []byte) (Ticket, error) {
	var w wireTicket
	if err := canon.UnmarshalExact(body, &w); err != nil {
		return Ticket{}, err
	}
	defer clear(w.Secret)
	t := Ticket{Routes: w.Routes, Secret: NewSecret(w.Secret)}
	if err := fill(t.Authority[:], w.Authority); err != nil {
		return Ticket{}, fmt.Errorf("authority %w", err)
	}
	if err := fill(t.ID[:], w.ID); err != nil {
		return Ticket{}, fmt.Errorf("id %w", err)
	}
	if err := t.check(); err != nil {
		return Ticket{}, err
	}
	return t, nil
}

// UnmarshalText is [ParseTicket]; on an error t stays as it was. There is no
// MarshalText: the secret goes into no encoding by accident.
func (t *Ticket) UnmarshalText(text []byte) error {
	parsed, err := ParseTicket(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// Redacted names the ticket: its authority and its id, without the secret.
func (t Ticket) Redacted() string {
	return fmt.Sprintf("ticket(%s of authority %s, secret redacted)", t.ID, t.Authority)
}

// String is [Ticket.Redacted].
func (t Ticket) String() string { return t.Redacted() }

// Format prints [Ticket.Redacted] for every verb and flag, %#v and %x too.
func (t Ticket) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, t.Redacted()) // fmt keeps a failed write's error itself
}
