package identity

import (
	"bytes"
	"testing"
	"time"
)

func FuzzParseHistory(f *testing.F) {
	for _, n := range []int{1, 2, 3, MaxChanges} {
		f.Add(testIdentity(f, n).History().Bytes())
	}
	f.Add([]byte{0x80})
	f.Add([]byte{0xf6})
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := ParseHistory(in)
		if err != nil {
			return
		}
		if !bytes.Equal(h.Bytes(), in) {
			t.Errorf("accepted %x but prints %x", in, h.Bytes())
		}
		if h.Len() < 1 || h.Len() > MaxChanges || !h.Extends(h) || h.Identifier().IsZero() {
			t.Errorf("accepted a history that cannot be: %x", in)
		}
		_, printed, err := parsePEM(h.MarshalPEM())
		if err != nil || printed.LastHash() != h.LastHash() {
			t.Errorf("its PEM form does not read back: %v", err)
		}
	})
}

func FuzzVerifyAttestation(f *testing.F) {
	id := testIdentity(f, 2)
	good, now := testAttestation(f, id)
	other, _ := testAttestation(f, testIdentity(f, 1))
	f.Add(good)
	f.Add(other)
	f.Add(good[:100])
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, in []byte) {
		// Only the holder of the key can make what verifies: for these times
		// and this key that is the one below.
		if err := VerifyAttestation(id.History(), in, static, now.Add(time.Hour), skew); err == nil && !bytes.Equal(in, good) {
			t.Errorf("a forgery verifies: %x", in)
		}
	})
}

func FuzzParsePEM(f *testing.F) {
	id := testIdentity(f, 2)
	f.Add(id.MarshalPEM())
	f.Add(id.History().MarshalPEM())
	f.Add(testIdentity(f, MaxChanges).MarshalPEM())
	f.Add(append(id.MarshalPEM(), '\n'))
	f.Add([]byte("-----BEGIN CULVERT IDENTITY-----\n-----END CULVERT IDENTITY-----\n"))
	f.Add([]byte("-----BEGIN CULVERT PRIVATE KEY-----\na: b\n\nAQEB\n-----END CULVERT PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, h, err := parsePEM(bytes.Clone(in))
		if err != nil {
			return
		}
		out := h.MarshalPEM()
		if s != nil {
			out = hold(s, h).MarshalPEM()
		}
		if !bytes.Equal(in, out) {
			t.Errorf("accepted %q but prints %q", in, out)
		}
	})
}
