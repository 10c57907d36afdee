package noise

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	flynn "github.com/flynn/noise"
)

// TestInterop runs XX against another implementation, in both roles, and 300
// messages each way afterwards, which is past the first byte of the nonce.
func TestInterop(t *testing.T) {
	ciphers := map[Suite]flynn.CipherFunc{AESGCM: flynn.CipherAESGCM, ChaChaPoly: flynn.CipherChaChaPoly}
	for _, suite := range suites {
		for _, initiator := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/initiator=%v", suite, initiator), func(t *testing.T) {
				t.Parallel()
				testInterop(t, suite, ciphers[suite], initiator)
			})
		}
	}
}

func testInterop(t *testing.T, suite Suite, cipher flynn.CipherFunc, initiator bool) {
	prologue := []byte("CVRT\x01\x01\x02\x00")
	static := privateKey(t, seq(1, 32))
	ours := mustNew(t, Config{Pattern: XX, Suite: suite, Initiator: initiator, Prologue: prologue, Static: static})
	theirKey, err := flynn.DH25519.GenerateKeypair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := flynn.NewHandshakeState(flynn.Config{
		CipherSuite:   flynn.NewCipherSuite(flynn.DH25519, cipher, flynn.HashSHA256),
		Pattern:       flynn.HandshakeXX,
		Initiator:     !initiator,
		Prologue:      prologue,
		StaticKeypair: theirKey,
	})
	if err != nil {
		t.Fatal(err)
	}

	var c1, c2 *flynn.CipherState
	for i := range 3 {
		want := bytes.Repeat([]byte{byte(i)}, 100*i)
		var got, msg []byte
		if writes(initiator, i) {
			if msg, err = ours.WriteMessage(nil, want); err == nil {
				got, c1, c2, err = theirs.ReadMessage(nil, msg)
			}
		} else {
			if msg, c1, c2, err = theirs.WriteMessage(nil, want); err == nil {
				got, err = ours.ReadMessage(nil, msg)
			}
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d: got %x, %v, want %x", i+1, got, err, want)
		}
	}
	if got, want := ours.Hash(), theirs.ChannelBinding(); !bytes.Equal(got, want) {
		t.Errorf("hash %x, want %x", got, want)
	}
	if got, want := ours.RemoteStatic(), theirKey.Public; !bytes.Equal(got, want) {
		t.Errorf("remote static %x, want %x", got, want)
	}
	if got, want := theirs.PeerStatic(), static.PublicKey().Bytes(); !bytes.Equal(got, want) {
		t.Errorf("their remote static %x, want %x", got, want)
	}

	send, recv := mustSplit(t, ours)
	theirRecv, theirSend := c1, c2
	if !initiator {
		theirRecv, theirSend = c2, c1
	}
	for i := range 300 {
		ad, want := seq(byte(i), i%40), seq(byte(i), i)
		ct, err := send.Seal(nil, ad, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := theirRecv.Decrypt(nil, ad, ct); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d to them: got %x, %v, want %x", i, got, err, want)
		}
		if ct, err = theirSend.Encrypt(nil, ad, want); err != nil {
			t.Fatal(err)
		}
		if got, err := recv.Open(nil, ad, ct); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d from them: got %x, %v, want %x", i, got, err, want)
		}
	}
}
