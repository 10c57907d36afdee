package noise

import (
	"bytes"
	"testing"
)

// fuzzStep fuzzes the reader of message step of XXhfs, both suites. Randomness
// is fixed, so that the genuine message is the same in every run and the only
// one that may be accepted; message 1, which nothing authenticates yet, must
// then be refused by the initiator in message 2.
func fuzzStep(f *testing.F, step int) {
	genuine := map[Suite][][]byte{}
	for _, s := range suites {
		msgs := transcript(f, XXhfs, s)
		genuine[s] = msgs
		for _, msg := range msgs { // those of other steps too
			f.Add(byte(s), msg)
		}
		msg := msgs[step]
		f.Add(byte(s), msg[:len(msg)/2])
		f.Add(byte(s), msg[:len(msg)-1])
		f.Add(byte(s), append(bytes.Clone(msg), 0))
		f.Add(byte(s), make([]byte, len(msg)))
		f.Add(byte(s), bytes.Repeat([]byte{0xff}, len(msg)))
	}
	f.Add(byte(AESGCM), []byte{})
	f.Fuzz(func(t *testing.T, suite byte, msg []byte) {
		s := suites[suite%2]
		msgs, before := genuine[s], bytes.Clone(msg)
		same := bytes.Equal(msg, msgs[step])
		initiator, responder := newPair(t, XXhfs, s)
		reader := responder
		if step == 1 {
			reader = initiator
		}
		replay(t, reader, msgs[:step])
		_, err := reader.ReadMessage(nil, msg)
		if !bytes.Equal(msg, before) {
			t.Fatal("the message was written to")
		}
		if step == 0 && err == nil {
			replay(t, initiator, msgs[:1])
			_, err = drive(initiator, responder, nil)
		}
		if same != (err == nil) {
			t.Fatalf("genuine %v, and the handshake ended with %v", same, err)
		}
		if err == nil {
			return
		}
		if initiator.err == nil && responder.err == nil {
			t.Fatalf("neither side failed with %v", err)
		}
		for _, h := range []*Handshake{initiator, responder} {
			if h.err != nil && (h.Complete() || h.sym != nil || h.RemoteStatic() != nil) {
				t.Fatalf("after %v the refuser holds keys", err)
			}
		}
	})
}

func FuzzReadMessage1(f *testing.F) { fuzzStep(f, 0) }
func FuzzReadMessage2(f *testing.F) { fuzzStep(f, 1) }
func FuzzReadMessage3(f *testing.F) { fuzzStep(f, 2) }

// FuzzOpen opens arbitrary bytes in place: the one genuine message opens, any
// other kills the cipher.
func FuzzOpen(f *testing.F) {
	genuine := map[Suite][]byte{}
	for _, s := range suites {
		send, _ := cipherPair(f, s)
		ct, err := send.Seal(nil, nil, []byte("plaintext"))
		if err != nil {
			f.Fatal(err)
		}
		genuine[s] = ct
		f.Add(byte(s), ct)
		f.Add(byte(s), ct[:Overhead])
		f.Add(byte(s), ct[:Overhead-1])
		f.Add(byte(s), append(bytes.Clone(ct), 0))
	}
	f.Add(byte(AESGCM), []byte{})
	f.Fuzz(func(t *testing.T, suite byte, ct []byte) {
		s := suites[suite%2]
		_, recv := cipherPair(t, s)
		same := bytes.Equal(ct, genuine[s])
		got, err := recv.Open(ct[:0], nil, bytes.Clone(ct))
		if same != (err == nil) || same && string(got) != "plaintext" {
			t.Fatalf("genuine %v: got %q, %v", same, got, err)
		}
		if err != nil {
			if _, again := recv.Open(nil, nil, genuine[s]); again == nil {
				t.Fatal("the cipher lives on after a failure")
			}
		}
	})
}
