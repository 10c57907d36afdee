package noise

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

// TestMLKEMAccumulated checks ML-KEM-768 as linked into this program against
// the digest over 10,000 key generations, encapsulations, decapsulations and
// implicit rejections that C2SP's CCTV publishes ("accumulated" vectors); over
// 100 in short mode and under the race detector, where it takes half a minute.
// All randomness comes from SHAKE-128 of nothing.
func TestMLKEMAccumulated(t *testing.T) {
	n, want := 10000, "8a518cc63da366322a8e7a818c7a0d63483cb3528d34a4cf42f35d5ad73f22fc"
	if testing.Short() || raceEnabled {
		n, want = 100, "1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415"
	}
	random, digest := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	seed, msg := make([]byte, mlkem.SeedSize), make([]byte, 32)
	garbage := make([]byte, mlkem.CiphertextSize768)
	for range n {
		random.Read(seed)
		dk, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			t.Fatal(err)
		}
		digest.Write(dk.EncapsulationKey().Bytes())

		random.Read(msg)
		secret, ct, err := mlkemtest.Encapsulate768(dk.EncapsulationKey(), msg)
		if err != nil {
			t.Fatal(err)
		}
		digest.Write(ct)
		digest.Write(secret)
		if got, err := dk.Decapsulate(ct); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("decapsulating: got %x, %v, want %x", got, err, secret)
		}

		random.Read(garbage)
		rejected, err := dk.Decapsulate(garbage)
		if err != nil {
			t.Fatalf("decapsulating garbage: %v", err)
		}
		digest.Write(rejected)
	}
	sum := make([]byte, 32)
	digest.Read(sum)
	if got := hex.EncodeToString(sum); got != want {
		t.Errorf("digest over %d: got %s, want %s", n, got, want)
	}
}

// TestImplicitRejection has the responder send a well-formed ciphertext for
// another key: decapsulation gives no error, and the handshake fails all the
// same, at the very next field.
func TestImplicitRejection(t *testing.T) {
	for _, suite := range suites {
		ci, cr := fixed.configs(t, XXhfs, suite)
		cr.hooks.encapsulate = func(*mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error) {
			other, err := mlkem.NewDecapsulationKey768(seq(9, mlkem.SeedSize))
			if err != nil {
				t.Fatal(err)
			}
			return mlkemtest.Encapsulate768(other.EncapsulationKey(), fixed.respEncapsulate)
		}
		at, err := drive(mustNew(t, ci), mustNew(t, cr), nil)
		wantFailure(t, "ciphertext for another key", at, err, 1, ErrAuthentication)
	}
}

// TestSecretOfKEMCounts has the responder mix another secret than the one it
// encapsulated. If the KEM's secret went nowhere, this would pass.
func TestSecretOfKEMCounts(t *testing.T) {
	for _, suite := range suites {
		ci, cr := fixed.configs(t, XXhfs, suite)
		genuine := cr.hooks.encapsulate
		cr.hooks.encapsulate = func(ek *mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error) {
			secret, ciphertext, err = genuine(ek)
			secret[0] ^= 1
			return secret, ciphertext, err
		}
		at, err := drive(mustNew(t, ci), mustNew(t, cr), nil)
		wantFailure(t, "another secret", at, err, 1, ErrAuthentication)
	}
}

// TestEncapsulationKeyCheck sends a key with a coefficient that is not reduced,
// which FIPS 203 section 7.2 has the encapsulator refuse.
func TestEncapsulationKeyCheck(t *testing.T) {
	i, r := newPair(t, XXhfs, AESGCM)
	at, err := drive(i, r, func(_ int, msg []byte) []byte {
		msg[32], msg[33] = 0xff, 0xff // the first coefficient: 4095, q is 3329
		return msg
	})
	wantFailure(t, "coefficient 4095", at, err, 0, ErrKey)
	wantDead(t, r, err)
}
