package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
)

const skew = 5 * time.Minute

var static = [32]byte{1, 2, 3, 4}

// testAttestation returns id's attestation of static, for a day from a second
// after the last of testIdentity's changes.
func testAttestation(t testing.TB, id *Identity) (b []byte, from time.Time) {
	t.Helper()
	from = epoch.Add(time.Duration(id.History().Len()) * time.Hour)
	b, err := id.Attest(static, from, from.Add(MaxAttestationTime))
	if err != nil {
		t.Fatal(err)
	}
	return b, from
}

func TestKnownAttestation(t *testing.T) {
	b, _ := testAttestation(t, testIdentity(t, 2))
	const want = "157463b0a90bbc18785e3aa51e66548f62f1d4408214c3d6fab3692768887a7e"
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
		t.Errorf("SHA-256(attestation) = %x, want %s\n%x", got, want, b)
	}
}

func TestVerifyAttestation(t *testing.T) {
	for n := range 3 {
		id := testIdentity(t, n+1)
		b, from := testAttestation(t, id)
		if len(b) > MaxAttestationLen/2 {
			t.Errorf("attestation has %d bytes, too near to the bound", len(b))
		}
		if err := VerifyAttestation(id.History(), b, static, from.Add(time.Hour), skew); err != nil {
			t.Errorf("%d changes: %v", n+1, err)
		}
	}
}

func TestVerifyAttestationTimes(t *testing.T) {
	id := testIdentity(t, 1)
	b, from := testAttestation(t, id)
	until := from.Add(MaxAttestationTime)
	tests := []struct {
		name string
		now  time.Time
		skew time.Duration
		want error
	}{
		{"first instant", from, 0, nil},
		{"before", from.Add(-1), 0, ErrNotYetValid},
		{"before, within the skew", from.Add(-skew), skew, nil},
		{"before the skew", from.Add(-skew - 1), skew, ErrNotYetValid},
		{"last instant", until.Add(-1), 0, nil},
		{"end", until, 0, ErrExpired},
		{"end, within the skew", until.Add(skew - 1), skew, nil},
		{"end of the skew", until.Add(skew), skew, ErrExpired},
		{"years later", until.Add(Validity), skew, ErrExpired},
	}
	for _, tt := range tests {
		err := VerifyAttestation(id.History(), b, static, tt.now, tt.skew)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			wantError(t, err, "verifying attestation: ", "check the clocks")
		}
	}
}

// The attestation still holds, but the key that signed it does not.
func TestVerifyAttestationChecksTheKeysTimes(t *testing.T) {
	id := testIdentity(t, 1)
	end := id.History().Expires()
	b, err := id.Attest(static, end.Add(-time.Hour), end.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAttestation(id.History(), b, static, end.Add(-time.Second), 0); err != nil {
		t.Errorf("before the key ends: %v", err)
	}
	err = VerifyAttestation(id.History(), b, static, end, 0)
	if !errors.Is(err, ErrExpired) {
		t.Errorf("after the key ended: %v, want %v", err, ErrExpired)
	}
	wantError(t, err, "identity "+id.Identifier().String())

	if b, err = id.Attest(static, epoch.Add(-time.Hour), epoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := VerifyAttestation(id.History(), b, static, epoch.Add(-time.Second), 0); !errors.Is(err, ErrNotYetValid) {
		t.Errorf("before the key starts: %v, want %v", err, ErrNotYetValid)
	}
}

func TestVerifyAttestationRefusesEveryChangedByte(t *testing.T) {
	id := testIdentity(t, 2)
	b, now := testAttestation(t, id)
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if err := VerifyAttestation(id.History(), bad, static, now, skew); err == nil {
			t.Errorf("byte %d, bit %d flipped: accepted", i, i%8)
		}
		if err := VerifyAttestation(id.History(), b[:i], static, now, skew); err == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
	}
	if err := VerifyAttestation(id.History(), append(bytes.Clone(b), 0), static, now, skew); err == nil {
		t.Error("one byte more: accepted")
	}
	for i := range static {
		bad := static
		bad[i] ^= 0x80
		wantError(t, VerifyAttestation(id.History(), b, bad, now, skew), "it is for another static key")
	}
}

func TestVerifyAttestationRefuses(t *testing.T) {
	id, now := testIdentity(t, 2), epoch.Add(2*time.Hour)
	resign := func(key byte, label string, f func(a *attested)) []byte {
		b, _ := testAttestation(t, id)
		var outer attestation
		var a attested
		if err := errors.Join(canon.UnmarshalExact(b, &outer), canon.UnmarshalExact(outer.Attested, &a)); err != nil {
			t.Fatal(err)
		}
		f(&a)
		body := encode(t, a)
		return encode(t, attestation{body, sign(testKey(key), label, body)})
	}
	same := func(*attested) {}
	if err := VerifyAttestation(id.History(), resign(2, attestationLabel, same), static, now, skew); err != nil {
		t.Fatalf("signed again: %v", err)
	}
	older, _ := testAttestation(t, testIdentity(t, 1))
	newer, _ := testAttestation(t, testIdentity(t, 3))
	stranger := hold(testKey(9), testIdentityFrom(t, 9, 1))
	strangers, _ := testAttestation(t, stranger)
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "decoding CBOR"},
		{"too long", make([]byte, MaxAttestationLen+1), "513 bytes, more than 512"},
		{"before the last rotation", older, "another state of the identity's history"},
		{"after a rotation we do not know", newer, "another state of the identity's history"},
		{"another identity", strangers, "it is for another identity"},
		{"signed by another key", resign(9, attestationLabel, same), "signature is wrong"},
		{"signed by the previous key", resign(1, attestationLabel, same), "signature is wrong"},
		{"signed as a change", resign(2, changeLabel, same), "signature is wrong"},
		{"signed without a label", resign(2, "", same), "signature is wrong"},
		{"identifier short", resign(2, attestationLabel, func(a *attested) { a.Identifier = a.Identifier[:31] }), "another identity"},
		{"hash missing", resign(2, attestationLabel, func(a *attested) { a.LastHash = nil }), "another state"},
		{"hash empty", resign(2, attestationLabel, func(a *attested) { a.LastHash = []byte{} }), "another state"},
		{"static key short", resign(2, attestationLabel, func(a *attested) { a.Static = a.Static[:31] }), "static key has 31 bytes"},
		{"static key long", resign(2, attestationLabel, func(a *attested) { a.Static = append(a.Static, 0) }), "static key has 33 bytes"},
		{"too long a time", resign(2, attestationLabel, func(a *attested) { a.NotAfter++ }), "holds for 24h0m1s, more than 24h0m0s"},
		{"ends when it starts", resign(2, attestationLabel, func(a *attested) { a.NotAfter = a.NotBefore }), "ends before it starts"},
		{"ends before it starts", resign(2, attestationLabel, func(a *attested) { a.NotAfter = a.NotBefore - 1 }), "ends before it starts"},
		{"times that overflow", resign(2, attestationLabel, func(a *attested) { a.NotBefore, a.NotAfter = math.MaxUint64-1, math.MaxUint64 }), "after the year 9999"},
		{"end that overflows", resign(2, attestationLabel, func(a *attested) { a.NotAfter = math.MaxUint64 }), "after the year 9999"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, VerifyAttestation(id.History(), tt.in, static, now, skew), "verifying attestation: ", tt.want)
		})
	}
}

// A signature of any other length is refused like a wrong one.
func TestVerifyAttestationSignatureLength(t *testing.T) {
	id := testIdentity(t, 1)
	b, now := testAttestation(t, id)
	var outer attestation
	if err := canon.UnmarshalExact(b, &outer); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 63, 65, 128} {
		bad := attestation{outer.Attested, make([]byte, n)}
		copy(bad.Signature, outer.Signature)
		wantError(t, VerifyAttestation(id.History(), encode(t, bad), static, now, skew), "signature is wrong")
	}
}

func TestAttestRefuses(t *testing.T) {
	id := testIdentity(t, 1)
	end := id.History().Expires()
	tests := []struct {
		name        string
		from, until time.Time
		want        string
	}{
		{"too long", epoch, epoch.Add(MaxAttestationTime + time.Second), "holds for 24h0m1s, more than 24h0m0s"},
		{"empty", epoch, epoch, "ends before it starts"},
		{"empty after rounding", epoch, epoch.Add(time.Second - 1), "ends before it starts"},
		{"reversed", epoch.Add(time.Hour), epoch, "ends before it starts"},
		{"before 1970", time.Time{}, epoch, "set this machine's clock"},
		{"after 9999", epoch, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "set this machine's clock"},
		{"after the key's end", end, end.Add(time.Hour), "expired at 2035-12-31T03:04:05Z"},
		{"before the key's start", epoch.Add(-time.Hour), epoch, "not valid yet before 2026-01-02T03:04:05Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := id.Attest(static, tt.from, tt.until)
			wantError(t, err, "attesting static key: ", tt.want)
		})
	}
	_, err := id.Attest(static, end, end.Add(time.Hour))
	if !errors.Is(err, ErrExpired) {
		t.Errorf("Attest = %v, want %v", err, ErrExpired)
	}
	_, err = id.Attest(static, epoch.Add(-time.Hour), epoch)
	if !errors.Is(err, ErrNotYetValid) {
		t.Errorf("Attest = %v, want %v", err, ErrNotYetValid)
	}
}

// A caller that draws "24 hours from now" from a clock with nanoseconds gets
// them.
func TestAttestRoundsDown(t *testing.T) {
	id := testIdentity(t, 1)
	from := epoch.Add(999 * time.Millisecond)
	b, err := id.Attest(static, from, from.Add(MaxAttestationTime))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAttestation(id.History(), b, static, epoch, 0); err != nil {
		t.Error(err)
	}
}

// The labels keep each signature to its purpose, and no label is the start of
// another.
func TestLabels(t *testing.T) {
	for _, l := range []string{changeLabel, attestationLabel} {
		if got := bytes.IndexByte([]byte(l), 0); got != len(l)-1 {
			t.Errorf("label %q has its first zero byte at %d, want it last", l, got)
		}
	}
	key := testKey(1)
	pub := key.Public().(ed25519.PublicKey)
	if signed(pub, changeLabel, []byte("m"), sign(key, attestationLabel, []byte("m"))) {
		t.Error("a signature under one label holds under another")
	}
}
