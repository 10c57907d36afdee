package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
)

// Bounds of an attestation.
const (
	MaxAttestationLen  = 512 // bytes
	MaxAttestationTime = 24 * time.Hour
)

// An attestation binds a static key to an identity, as it travels.
type attestation struct {
	Attested  []byte `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"`
}

// An attested is what the signature of an attestation is over.
type attested struct {
	Identifier []byte `cbor:"1,keyasint"`
	LastHash   []byte `cbor:"2,keyasint"`
	Static     []byte `cbor:"3,keyasint"`
	NotBefore  uint64 `cbor:"4,keyasint"`
	NotAfter   uint64 `cbor:"5,keyasint"`
}

// Attest signs, with the current key, that static is the X25519 public key of a
// process of this identity from notBefore (inclusive) to notAfter (exclusive),
// both rounded down to seconds and at most [MaxAttestationTime] apart. It fails
// if the current key holds at no time in between.
func (id *Identity) Attest(static [32]byte, notBefore, notAfter time.Time) ([]byte, error) {
	from, err := seconds(notBefore)
	if err != nil {
		return nil, fmt.Errorf("attesting static key: %w", err)
	}
	until, err := seconds(notAfter)
	if err != nil {
		return nil, fmt.Errorf("attesting static key: %w", err)
	}
	if err := checkSpan(from, until); err != nil {
		return nil, fmt.Errorf("attesting static key: %w", err)
	}
	h := id.history
	if !instant(from).Before(h.expires) {
		return nil, fmt.Errorf("attesting static key: identity %s: %w at %s: make a new identity",
			h.Identifier(), ErrExpired, h.expires.Format(time.RFC3339))
	}
	if !instant(until).After(h.created) {
		return nil, fmt.Errorf("attesting static key: identity %s: %w before %s: check this machine's clock",
			h.Identifier(), ErrNotYetValid, h.created.Format(time.RFC3339))
	}
	identifier, last := h.Identifier(), h.LastHash()
	body, err := canon.Marshal(attested{
		Identifier: identifier[:],
		LastHash:   last[:],
		Static:     static[:],
		NotBefore:  from,
		NotAfter:   until,
	})
	if err != nil {
		return nil, fmt.Errorf("attesting static key: %w", err)
	}
	b, err := canon.Marshal(attestation{Attested: body, Signature: sign(id.key(), attestationLabel, body)})
	if err != nil {
		return nil, fmt.Errorf("attesting static key: %w", err)
	}
	return b, nil
}

// VerifyAttestation checks that b, which came from a peer with the verified
// history h, attests static by h's current key, and that both the attestation
// and that key hold at now, give or take skew. An error about times wraps
// [ErrNotYetValid] or [ErrExpired]. Whether h's identifier is the expected one
// remains for the caller to check.
func VerifyAttestation(h *History, b []byte, static [32]byte, now time.Time, skew time.Duration) error {
	a, err := parseAttestation(h, b)
	if err != nil {
		return fmt.Errorf("verifying attestation: %w", err)
	}
	if subtle.ConstantTimeCompare(a.Static, static[:]) != 1 {
		return errors.New("verifying attestation: it is for another static key")
	}
	if err := checkTime(instant(a.NotBefore), instant(a.NotAfter), now, skew); err != nil {
		return fmt.Errorf("verifying attestation: %w", err)
	}
	if err := h.CheckTime(now, skew); err != nil {
		return fmt.Errorf("verifying attestation: %w", err)
	}
	return nil
}

// parseAttestation reads an attestation by h's current key and checks all of
// it but what depends on the channel and the clock.
func parseAttestation(h *History, b []byte) (attested, error) {
	if len(b) > MaxAttestationLen {
		return attested{}, fmt.Errorf("%d bytes, more than %d", len(b), MaxAttestationLen)
	}
	var outer attestation
	if err := canon.UnmarshalExact(b, &outer); err != nil {
		return attested{}, err
	}
	var a attested
	if err := canon.UnmarshalExact(outer.Attested, &a); err != nil {
		return attested{}, err
	}
	identifier, last := h.Identifier(), h.LastHash()
	if !bytes.Equal(a.Identifier, identifier[:]) {
		return attested{}, errors.New("it is for another identity")
	}
	if !bytes.Equal(a.LastHash, last[:]) {
		return attested{}, errors.New("it is for another state of the identity's history")
	}
	if len(a.Static) != 32 {
		return attested{}, fmt.Errorf("static key has %d bytes, want 32", len(a.Static))
	}
	if err := checkSpan(a.NotBefore, a.NotAfter); err != nil {
		return attested{}, err
	}
	if len(outer.Signature) != ed25519.SignatureSize || !signed(h.key, attestationLabel, outer.Attested, outer.Signature) {
		return attested{}, errors.New("signature is wrong")
	}
	return a, nil
}

func checkSpan(from, until uint64) error {
	switch {
	case from > maxUnix || until > maxUnix:
		return errors.New("time is after the year 9999")
	case until <= from:
		return errors.New("it ends before it starts")
	case until-from > uint64(MaxAttestationTime/time.Second):
		return fmt.Errorf("it holds for %s, more than %s", instant(until).Sub(instant(from)), MaxAttestationTime)
	}
	return nil
}
