package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
)

// Labels keep a signature made for one purpose from being one for another.
// Their last byte keeps every label from being the start of a longer one.
const (
	changeLabel      = "culvert identity change v1\x00"
	attestationLabel = "culvert identity attestation v1\x00"
)

// maxUnix is the last second of the year 9999: every accepted time prints.
const maxUnix = 253402300799

// A signedChange is one element of a history as it travels.
type signedChange struct {
	Change   []byte `cbor:"1,keyasint"`
	Own      []byte `cbor:"2,keyasint"`
	Previous []byte `cbor:"3,keyasint,omitempty"`
}

// A change is what the signatures of a signedChange are over.
type change struct {
	Previous []byte `cbor:"1,keyasint,omitempty"`
	Key      []byte `cbor:"2,keyasint"`
	Created  uint64 `cbor:"3,keyasint"`
	Expires  uint64 `cbor:"4,keyasint"`
}

// signChange signs c with its own key and, unless c is the first change, with
// the previous one.
func signChange(c change, own, previous ed25519.PrivateKey) (signedChange, error) {
	b, err := canon.Marshal(c)
	if err != nil {
		return signedChange{}, err
	}
	s := signedChange{Change: b, Own: sign(own, changeLabel, b)}
	if previous != nil {
		s.Previous = sign(previous, changeLabel, b)
	}
	return s, nil
}

// hash returns what the next change and the identifier know s by.
func (s signedChange) hash() ([32]byte, error) {
	b, err := canon.Marshal(s)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}

// parseChange reads the change inside of s and checks all of it that needs no
// other change and no signature, since that costs least.
func parseChange(s signedChange) (change, error) {
	var c change
	if err := canon.UnmarshalExact(s.Change, &c); err != nil {
		return change{}, err
	}
	if len(s.Own) != ed25519.SignatureSize {
		return change{}, fmt.Errorf("own signature has %d bytes, want %d", len(s.Own), ed25519.SignatureSize)
	}
	if err := checkKey(c.Key); err != nil {
		return change{}, err
	}
	if c.Created > maxUnix || c.Expires > maxUnix {
		return change{}, errors.New("time is after the year 9999")
	}
	if c.Expires <= c.Created {
		return change{}, errors.New("it ends before it starts")
	}
	return c, nil
}

// sign signs label and message. message may be read by anybody afterwards.
func sign(key ed25519.PrivateKey, label string, message []byte) []byte {
	return ed25519.Sign(key, append([]byte(label), message...))
}

// signed reports whether signature is key's over label and message. key has
// passed checkKey.
func signed(key ed25519.PublicKey, label string, message, signature []byte) bool {
	return ed25519.Verify(key, append([]byte(label), message...), signature)
}

// smallOrder holds the canonical y coordinates of the eight points of small
// order, little-endian, sign bit clear. Under such a "key" anybody can make
// signatures, and crypto/ed25519 verifies them as RFC 8032 says.
var smallOrder = [5][32]byte{
	{}, // 0, order 4
	{1},
	{
		0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
	}, // -1, order 2
	{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	}, // order 8
	{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	}, // order 8
}

// checkKey refuses what crypto/ed25519 would take for a public key although it
// is none that a private key can have: wrong lengths, coordinates not below
// 2^255-19 and points of small order.
func checkKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("public key has %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	y := [32]byte(key)
	y[31] &= 0x7f // the sign of x
	if !belowPrime(y) {
		return errors.New("public key is not in canonical form")
	}
	for _, small := range smallOrder {
		if y == small {
			return errors.New("public key is a point of small order, which everybody can sign for")
		}
	}
	return nil
}

// belowPrime reports whether y, little-endian, is less than 2^255-19. y is
// public.
func belowPrime(y [32]byte) bool {
	slices.Reverse(y[:])
	prime := [32]byte{0: 0x7f, 31: 0xed}
	for i := 1; i < 31; i++ {
		prime[i] = 0xff
	}
	return bytes.Compare(y[:], prime[:]) < 0
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
