package channel

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

func FuzzVerifyPayload(f *testing.F) {
	l := newLocal(f)
	s, err := l.shows(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	good, err := l.payload(s, []byte("request"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		peer, _, err := verifyPayload(b, s.static.PublicKey().Bytes(), time.Now(), time.Minute)
		if err == nil && peer.Identifier != l.Identifier() {
			t.Errorf("accepted %v for a key of %v", peer.Identifier, l.Identifier())
		}
	})
}

func FuzzParseChannelRequest(f *testing.F) {
	good, err := anyRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0xa1, 1, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseChannelRequest(b); err == nil && len(r.ID) != 16 {
			t.Errorf("accepted %+v", r)
		}
	})
}

func FuzzParseClose(f *testing.F) {
	f.Add(appendClose(nil, 7, code.Shutdown, "bye")[1:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		offset, c, reason, err := parseClose(b)
		if err != nil {
			return
		}
		if len(reason) > code.MaxReason*4 {
			t.Errorf("reason of %d bytes", len(reason))
		}
		again := appendClose(nil, offset, c, string(b[closeFixed:]))[1:]
		if !bytes.Equal(again, b) {
			t.Errorf("%x prints back as %x", b, again)
		}
	})
}

// FuzzRecords hands the reader authenticated records of any type and body: it
// may refuse, and must not panic, hang or deliver what is not DATA.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{byte(typeData), 'x'}, []byte{byte(typePing), 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{byte(typeClose)}, appendClose(nil, 0, 0, ""))
	f.Add(appendRefused(nil, code.Busy, "later"), []byte{0xff})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > maxPlain || len(two) > maxPlain {
			return
		}
		a, b := net.Pipe()
		x, y := connPair(t, a, b, Options{Linger: time.Millisecond})
		var wire, want []byte
		for _, plain := range [][]byte{one, two} {
			sealed, err := x.w.cipher.Seal(nil, nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			wire = append(binary.BigEndian.AppendUint16(wire, uint16(len(sealed))), sealed...)
			if len(plain) > 1 && plain[0] == byte(typeData) {
				want = append(want, plain[1:]...)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, a) }()
		go func() { _, _ = a.Write(wire); _ = a.Close() }()
		got, err := io.ReadAll(y)
		if !bytes.HasPrefix(want, got) {
			t.Errorf("delivered %x, want a prefix of %x", got, want)
		}
		if err == nil && !bytes.Contains(append(one, two...), []byte{byte(typeClose)}) {
			t.Error("io.EOF without a CLOSE")
		}
		_ = y.Close()
		_ = x.Close()
	})
}
