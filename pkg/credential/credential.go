package credential

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of a credential. A bundle is what the handshake can carry.
const (
	MaxBundleLen    = 8 << 10 // bytes
	MaxLifetime     = 24 * time.Hour
	DefaultLifetime = time.Hour
)

const credentialLabel = "culvert credential v1" //nolint:gosec // G101: a label, no credential

// maxUnix is the last second of the year 9999: every accepted time prints.
const maxUnix = 253402300799

// A Serial names one credential of an authority: 16 random bytes.
type Serial [16]byte

// newSerial draws a serial.
func newSerial() (s Serial) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// ParseSerial reads what [Serial.String] prints, and nothing else.
func ParseSerial(text string) (Serial, error) {
	s, err := parseHex16(text)
	if err != nil {
		return Serial{}, fmt.Errorf("reading serial: %w", err)
	}
	return s, nil
}

// String returns the serial's 32 lower-case hexadecimal digits.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// IsZero reports whether s is the zero Serial, which no credential has.
func (s Serial) IsZero() bool { return s == Serial{} }

func parseHex16(text string) (b [16]byte, err error) {
	if len(text) != 2*len(b) {
		return b, fmt.Errorf("%d characters, want %d hexadecimal digits", len(text), 2*len(b))
	}
	if _, err := hex.Decode(b[:], []byte(text)); err != nil || hex.EncodeToString(b[:]) != text {
		return [16]byte{}, errors.New("it has characters other than 0-9 and a-f")
	}
	if b == [16]byte{} {
		return b, errors.New("it is all zero, which none is")
	}
	return b, nil
}

// A Credential is what an authority has signed of one identity. It is not to
// be changed; one that counts comes from a [Verifier].
type Credential struct {
	Serial     Serial
	Issuer     identity.Identifier
	Subject    identity.Identifier
	Attributes Attributes
	NotBefore  time.Time // inclusive, whole seconds
	NotAfter   time.Time // exclusive, whole seconds; at most MaxLifetime later

	signer [32]byte // hash of the issuer's change whose key signed
}

// A bundle is a credential as it travels: with the history of its issuer, so
// that whoever knows the issuer's identifier can verify it.
type bundle struct {
	History    []byte `cbor:"1,keyasint"`
	Credential []byte `cbor:"2,keyasint"`
	Signature  []byte `cbor:"3,keyasint"`
}

// Claims are what the signature of a bundle is over.
type claims struct {
	Serial     []byte            `cbor:"1,keyasint"`
	Issuer     []byte            `cbor:"2,keyasint"`
	Signer     []byte            `cbor:"3,keyasint"`
	Subject    []byte            `cbor:"4,keyasint"`
	Attributes map[string]string `cbor:"5,keyasint,omitempty"`
	NotBefore  uint64            `cbor:"6,keyasint"`
	NotAfter   uint64            `cbor:"7,keyasint"`
}

// A Template is what [Issue] signs: a credential without what the issuer adds.
type Template struct {
	Subject    identity.Identifier
	Attributes Attributes
	NotBefore  time.Time     // rounded down to seconds
	Lifetime   time.Duration // whole seconds; 0: DefaultLifetime; at most MaxLifetime
}

// Issue signs a credential with authority's current key, and returns it
// together with its bundle, which is what the subject presents. It fails when
// that key does not hold at the template's NotBefore, or what is to be signed
// breaks a bound.
func Issue(authority *identity.Identity, t Template) (*Credential, []byte, error) {
	c, b, err := issue(authority, newSerial(), t)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a credential for %s: %w", t.Subject, err)
	}
	return c, b, nil
}

func issue(authority *identity.Identity, serial Serial, t Template) (*Credential, []byte, error) {
	h := authority.History()
	from, err := seconds(t.NotBefore)
	if err != nil {
		return nil, nil, err
	}
	if t.Lifetime == 0 {
		t.Lifetime = DefaultLifetime
	}
	if t.Lifetime < 0 || t.Lifetime%time.Second != 0 {
		return nil, nil, fmt.Errorf("lifetime of %s, want whole seconds above 0", t.Lifetime)
	}
	if err := h.CheckTime(t.NotBefore, 0); err != nil {
		return nil, nil, err
	}
	issuer, signer := h.Identifier(), h.LastHash()
	body, err := canon.Marshal(claims{
		Serial:     serial[:],
		Issuer:     issuer[:],
		Signer:     signer[:],
		Subject:    t.Subject[:],
		Attributes: t.Attributes,
		NotBefore:  from,
		NotAfter:   from + uint64(t.Lifetime/time.Second),
	})
	if err != nil {
		return nil, nil, err
	}
	// Reading it back runs every check that others will run.
	c, err := parseClaims(body)
	if err != nil {
		return nil, nil, err
	}
	signature, err := authority.Sign(credentialLabel, body)
	if err != nil {
		return nil, nil, err
	}
	b, err := canon.Marshal(bundle{History: h.Bytes(), Credential: body, Signature: signature})
	if err != nil {
		return nil, nil, err
	}
	if len(b) > MaxBundleLen {
		return nil, nil, fmt.Errorf("with the authority's history it has %d bytes, more than the %d that a handshake carries: have fewer or shorter attributes",
			len(b), MaxBundleLen)
	}
	return c, b, nil
}

// Inspect reads a bundle and verifies what stands in the bundle alone: the
// issuer's history and the signature. Whether the issuer is trusted, whom the
// credential is for and whether it holds now, [Verifier.Verify] says. An error
// is an [*Error].
func Inspect(b []byte) (*Credential, *identity.History, error) {
	opened, fail := openBundle(b)
	if fail != nil {
		return nil, nil, fail
	}
	h, fail := opened.verify(nil)
	if fail != nil {
		return nil, nil, fail
	}
	return opened.claims, h, nil
}

// An openedBundle is one whose claims are read and checked by themselves, its
// history and signature not yet.
type openedBundle struct {
	bundle
	claims *Credential
}

func openBundle(b []byte) (*openedBundle, *Error) {
	if len(b) > MaxBundleLen {
		return nil, fault(code.CredentialMalformed, "reading credential: %d bytes, more than %d", len(b), MaxBundleLen)
	}
	var o openedBundle
	if err := canon.UnmarshalExact(b, &o.bundle); err != nil {
		return nil, fault(code.CredentialMalformed, "reading credential: %w", err)
	}
	var err error
	if o.claims, err = parseClaims(o.Credential); err != nil {
		return nil, fault(code.CredentialMalformed, "reading credential: %w", err)
	}
	return &o, nil
}

// verify checks the history and the signature, and returns the history: known,
// if it is that one, whose verification need not be repeated.
func (o *openedBundle) verify(known *knownHistory) (*identity.History, *Error) {
	c := o.claims
	h, err := known.orParse(o.History)
	if err != nil {
		return nil, fault(code.CredentialMalformed, "%w", err).of(c.Issuer, c.Serial)
	}
	if h.Identifier() != c.Issuer {
		return nil, fault(code.CredentialForged, "the history beside it is that of %s", h.Identifier()).of(c.Issuer, c.Serial)
	}
	change, ok := h.Change(c.signer)
	if !ok {
		return nil, fault(code.CredentialForged, "what signed it is no change of the authority's history beside it").of(c.Issuer, c.Serial)
	}
	if !change.Verify(credentialLabel, o.Credential, o.Signature) {
		return nil, fault(code.CredentialForged, "its signature is wrong").of(c.Issuer, c.Serial)
	}
	return h, nil
}

// parseClaims reads what is signed and checks all of it that needs no history,
// clock or peer.
func parseClaims(b []byte) (*Credential, error) {
	var raw claims
	if err := canon.UnmarshalExact(b, &raw); err != nil {
		return nil, err
	}
	c := &Credential{Attributes: raw.Attributes}
	for _, f := range []struct {
		name string
		from []byte
		into []byte
	}{
		{"serial", raw.Serial, c.Serial[:]},
		{"issuer", raw.Issuer, c.Issuer[:]},
		{"signer", raw.Signer, c.signer[:]},
		{"subject", raw.Subject, c.Subject[:]},
	} {
		if err := fill(f.into, f.from); err != nil {
			return nil, fmt.Errorf("%s %w", f.name, err)
		}
	}
	switch {
	case raw.NotBefore > maxUnix || raw.NotAfter > maxUnix:
		return nil, errors.New("time is after the year 9999")
	case raw.NotAfter <= raw.NotBefore:
		return nil, errors.New("it ends before it starts")
	case raw.NotAfter-raw.NotBefore > uint64(MaxLifetime/time.Second):
		return nil, fmt.Errorf("it holds for %d seconds, more than %s", raw.NotAfter-raw.NotBefore, MaxLifetime)
	}
	c.NotBefore, c.NotAfter = instant(raw.NotBefore), instant(raw.NotAfter)
	if err := c.Attributes.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// fill copies a name of a fixed length that is not all zero.
func fill(into, from []byte) error {
	if len(from) != len(into) {
		return fmt.Errorf("has %d bytes, want %d", len(from), len(into))
	}
	zero := byte(0)
	for _, b := range from {
		zero |= b
	}
	if zero == 0 {
		return errors.New("is all zero, which names nothing")
	}
	copy(into, from)
	return nil
}

// seconds returns t as it travels: whole seconds, rounded down.
func seconds(t time.Time) (uint64, error) {
	s := t.Unix()
	if s < 0 || s > maxUnix {
		return 0, fmt.Errorf("time %s is not between the years 1970 and 9999: set this machine's clock", t.UTC().Format(time.RFC3339))
	}
	return uint64(s), nil
}

// instant is the reverse of seconds, for a checked number.
func instant(s uint64) time.Time { return time.Unix(int64(s), 0).UTC() }
