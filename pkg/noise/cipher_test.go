package noise

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// plainAEAD returns the suite's AEAD under the key of cipherPair, made without
// the package, and the nonce for n written out.
func plainAEAD(t testing.TB, s Suite, n uint64) (cipher.AEAD, []byte) {
	t.Helper()
	nonce := make([]byte, 12)
	var aead cipher.AEAD
	if s == AESGCM {
		block, err := aes.NewCipher(seq(7, 32))
		if err != nil {
			t.Fatal(err)
		}
		if aead, err = cipher.NewGCM(block); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			nonce[11-i] = byte(n >> (8 * i))
		}
		return aead, nonce
	}
	aead, err := chacha20poly1305.New(seq(7, 32))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		nonce[4+i] = byte(n >> (8 * i))
	}
	return aead, nonce
}

// TestNonceLayout compares with the plain AEAD at nonces of every size.
func TestNonceLayout(t *testing.T) {
	for _, s := range suites {
		for _, n := range []uint64{0, 1, 0xff, 0x100, 0x0102030405060708, math.MaxUint64 - 1} {
			send, recv := cipherPair(t, s)
			send.n, recv.n = n, n
			got, err := send.Seal(nil, []byte("ad"), []byte("data"))
			aead, nonce := plainAEAD(t, s, n)
			if want := aead.Seal(nil, nonce, []byte("data"), []byte("ad")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: nonce %#x: got %x, %v, want %x", s, n, got, err, want)
			}
			if data, err := recv.Open(nil, []byte("ad"), got); err != nil || string(data) != "data" {
				t.Errorf("%s: nonce %#x: opened %q, %v", s, n, data, err)
			}
		}
	}
}

// TestNonceEnd checks that the last nonce is used, the reserved one is not, and
// that there is no way on from there.
func TestNonceEnd(t *testing.T) {
	for _, s := range suites {
		send, recv := cipherPair(t, s)
		send.n, recv.n = math.MaxUint64-1, math.MaxUint64-1
		ct, err := send.Seal(nil, nil, nil)
		if err != nil {
			t.Fatalf("%s: last Seal: %v", s, err)
		}
		if _, err := recv.Open(nil, nil, ct); err != nil {
			t.Fatalf("%s: last Open: %v", s, err)
		}
		aead, nonce := plainAEAD(t, s, math.MaxUint64)
		forbidden := aead.Seal(nil, nonce, nil, nil)
		for range 3 {
			if got, err := send.Seal(nil, nil, nil); got != nil || !errors.Is(err, ErrNonce) {
				t.Errorf("%s: Seal past the end: got %x, %v, want %v", s, got, err, ErrNonce)
			}
			if got, err := recv.Open(nil, nil, forbidden); got != nil || !errors.Is(err, ErrNonce) {
				t.Errorf("%s: Open past the end: got %x, %v, want %v", s, got, err, ErrNonce)
			}
		}
		if send.aead != nil || recv.aead != nil {
			t.Errorf("%s: exhausted cipher holds its key", s)
		}
	}
}

// TestOpenFailures checks that after each kind of failure the cipher is dead:
// what would have opened does not any more.
func TestOpenFailures(t *testing.T) {
	for _, s := range suites {
		for name, c := range map[string]struct {
			change func(first, second []byte) []byte
			want   error
		}{
			"flipped body":   {func(a, _ []byte) []byte { a[0] ^= 1; return a }, ErrAuthentication},
			"flipped tag":    {func(a, _ []byte) []byte { a[len(a)-1] ^= 1; return a }, ErrAuthentication},
			"cut":            {func(a, _ []byte) []byte { return a[:len(a)-1] }, ErrAuthentication},
			"cut to nothing": {func(a, _ []byte) []byte { return nil }, ErrTooShort},
			"cut to less":    {func(a, _ []byte) []byte { return a[:Overhead-1] }, ErrTooShort},
			"tag alone":      {func(a, _ []byte) []byte { return a[:Overhead] }, ErrAuthentication},
			"extended":       {func(a, _ []byte) []byte { return append(a, 0) }, ErrAuthentication},
			"too long":       {func(a, _ []byte) []byte { return append(a, make([]byte, MaxMessage)...) }, ErrTooLong},
			"dropped":        {func(_, b []byte) []byte { return b }, ErrAuthentication},
			"joined":         {func(a, b []byte) []byte { return append(a, b...) }, ErrAuthentication},
		} {
			send, recv := cipherPair(t, s)
			first, err := send.Seal(nil, []byte("ad"), []byte("first"))
			if err != nil {
				t.Fatal(err)
			}
			second, err := send.Seal(nil, []byte("ad"), []byte("second"))
			if err != nil {
				t.Fatal(err)
			}
			bad := c.change(bytes.Clone(first), bytes.Clone(second))
			for _, ct := range [][]byte{bad, first, second} {
				if got, err := recv.Open(nil, []byte("ad"), ct); got != nil || !errors.Is(err, c.want) {
					t.Errorf("%s: %s: got %q, %v, want %v", s, name, got, err, c.want)
				}
			}
			if recv.aead != nil {
				t.Errorf("%s: %s: dead cipher holds its key", s, name)
			}
			if _, err := recv.Seal(nil, nil, nil); !errors.Is(err, c.want) {
				t.Errorf("%s: %s: Seal of a dead cipher: got %v, want %v", s, name, err, c.want)
			}
		}
	}
}

func TestOpenRepeatedAndAD(t *testing.T) {
	for _, s := range suites {
		send, recv := cipherPair(t, s)
		ct, err := send.Seal(nil, []byte("ad"), []byte("once"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recv.Open(nil, []byte("ad"), ct); err != nil {
			t.Fatal(err)
		}
		if _, err := recv.Open(nil, []byte("ad"), ct); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: repeated: got %v, want %v", s, err, ErrAuthentication)
		}
		_, recv = cipherPair(t, s)
		if _, err := recv.Open(nil, []byte("aD"), ct); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: other associated data: got %v, want %v", s, err, ErrAuthentication)
		}
	}
}

// TestSealTooLong checks the limit, and that a plaintext past it costs no nonce.
func TestSealTooLong(t *testing.T) {
	for _, s := range suites {
		send, recv := cipherPair(t, s)
		most := make([]byte, MaxMessage-Overhead)
		if _, err := send.Seal(nil, nil, append(most, 0)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: got %v, want %v", s, err, ErrTooLong)
		}
		ct, err := send.Seal(nil, nil, most)
		if err != nil || len(ct) != MaxMessage {
			t.Fatalf("%s: got %d bytes, %v, want %d", s, len(ct), err, MaxMessage)
		}
		if got, err := recv.Open(nil, nil, ct); err != nil || len(got) != len(most) {
			t.Errorf("%s: opened %d bytes, %v, want %d", s, len(got), err, len(most))
		}
	}
}

// TestAllocsInPlace seals and opens behind a header in one buffer, without
// allocating.
func TestAllocsInPlace(t *testing.T) {
	const header = 2
	for _, s := range suites {
		for _, size := range []int{0, 1, 64, 1400, 16 << 10, MaxMessage - Overhead} {
			t.Run(fmt.Sprintf("%s/%d", s, size), func(t *testing.T) {
				send, recv := cipherPair(t, s)
				buf := make([]byte, header+size+Overhead)
				ad, want := []byte("ad"), seq(3, size)
				allocs := testing.AllocsPerRun(20, func() {
					copy(buf, "hd")
					copy(buf[header:], want)
					ct, err := send.Seal(buf[:header], ad, buf[header:header+size])
					if err != nil || len(ct) != len(buf) || &ct[0] != &buf[0] {
						t.Errorf("Seal: %d bytes, %v, want %d in place", len(ct), err, len(buf))
					}
					got, err := recv.Open(ct[header:header], ad, ct[header:])
					if err != nil || !bytes.Equal(got, want) || string(buf[:header]) != "hd" {
						t.Errorf("Open: %d bytes, %v, want %d in place", len(got), err, size)
					}
				})
				if allocs != 0 {
					t.Errorf("%v allocations a message, want 0", allocs)
				}
			})
		}
	}
}

func TestSuiteNames(t *testing.T) {
	for s, want := range map[Suite]string{AESGCM: "AESGCM", ChaChaPoly: "ChaChaPoly", 0: "suite_0", 9: "suite_9"} {
		if got := s.String(); got != want {
			t.Errorf("Suite(%d): got %q, want %q", byte(s), got, want)
		}
		if got, want := s.Valid(), s == 1 || s == 2; got != want {
			t.Errorf("Suite(%d).Valid: got %v, want %v", byte(s), got, want)
		}
	}
	_ = CPUHasAES() // must not panic anywhere
}
