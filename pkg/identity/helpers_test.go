package identity

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
)

// epoch is when the tests' identities are made.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testKey returns the n-th fixed private key.
func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// testIdentity returns an identity of n changes with keys 1 to n, made one
// hour apart from epoch on.
func testIdentity(t testing.TB, n int) *Identity {
	t.Helper()
	id, err := newWith(testKey(1), epoch, Validity)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		id, err = id.rotateTo(testKey(byte(i+1)), epoch.Add(time.Duration(i)*time.Hour), Validity)
		if err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// decode returns the changes of a history as they travel.
func decode(t testing.TB, h *History) []signedChange {
	t.Helper()
	var list []signedChange
	if err := canon.UnmarshalExact(h.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// encode returns v's encoding.
func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := canon.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantError fails unless err's text holds every part.
func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q in it", err, part)
		}
	}
}
