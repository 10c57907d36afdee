package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

func FuzzParseOpen(f *testing.F) {
	f.Add(openFrame(f)[frameHeader:])
	f.Add([]byte{0xa1, 1, 0x61, 's'})
	f.Add([]byte{0xa2, 1, 0x61, 's', 2, 0x61, 'c'})
	f.Add([]byte{0xa2, 1, 0x61, 's', 9, 0x80})
	f.Add([]byte{0xa1, 0x18, 1, 0x61, 's'})
	traced, err := Open{Service: "s", ClientAddress: "c", Trace: aTraceContext(true)}.frame()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(traced[frameHeader:])
	f.Add(hostileOpen(f, make([]byte, TraceContextLen)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxOpen {
			return
		}
		o, err := parseOpen(b)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Errorf("error %v is no breach of protocol", err)
			}
			return
		}
		frame, err := o.frame()
		if err != nil {
			t.Fatalf("what was parsed cannot be sent: %+v: %v", o, err)
		}
		if again, err := parseOpen(frame[frameHeader:]); err != nil || again != o {
			t.Fatalf("got %+v, %v after a round trip, want %+v", again, err, o)
		}
	})
}

func FuzzFrameHeader(f *testing.F) {
	for _, typ := range []frameType{0, frameOpen, frameOpened, frameRefused, frameData, frameFin, frameRst, 7, controlAbort, 255} {
		f.Add(byte(typ), uint32(0))
		f.Add(byte(typ), uint32(2))
		f.Add(byte(typ), uint32(1<<24-1))
	}
	f.Fuzz(func(t *testing.T, typ byte, n uint32) {
		n &= 1<<24 - 1
		var b [frameHeader]byte
		putHeader(b[:], frameType(typ), int(n))
		gotType, gotN := parseHeader(b)
		if byte(gotType) != typ || gotN != int(n) {
			t.Fatalf("got %d, %d, want %d, %d", gotType, gotN, typ, n)
		}
		if checkFrame(gotType, gotN) == nil && gotN > maxData {
			t.Errorf("a frame of %d bytes is good", gotN)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(byte(controlAbort), []byte{0, 0, 0, 3, 0, 70})
	f.Add(byte(controlStop), []byte{0, 0, 0, 3})
	f.Add(byte(controlDrain), []byte("bye"))
	f.Add(byte(controlProbe), []byte{0, 0, 0, 3})
	f.Add(byte(controlProgress), []byte{0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Add(byte(18), []byte(nil))
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		if len(body) > maxControl {
			return
		}
		s := NewServer(nil, Config{})
		if err := s.adapter.windows.open(3, 10); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.handleControl(frameType(typ), body); err != nil && !errors.Is(err, errProtocol) {
				t.Errorf("error %v is no breach of protocol", err)
			}
		}
		if id, c, err := parseAbort(body); err == nil && !bytes.Equal(appendAbort(nil, id, c)[frameHeader:], body) {
			t.Errorf("ABORT %x does not survive a round trip", body)
		}
		if id, moved, err := parseProgress(body); err == nil && !bytes.Equal(appendProgress(nil, id, moved)[frameHeader:], body) {
			t.Errorf("PROGRESS %x does not survive a round trip", body)
		}
	})
}

// FuzzScan: however the peer's bytes are split, the adapter finds the same and hands
// out the same: all of it but data that nobody will read.
func FuzzScan(f *testing.F) {
	f.Add(joined(syn(1), syn(3), data(3, []byte("some bytes"))), uint8(1))
	f.Add(joined(syn(1), data(1, []byte("a")), data(3, []byte("of no stream")), syn(5), data(5, []byte("b"))), uint8(7))
	f.Add(joined(syn(1), muxFrame(0, muxWindowUpdate, flagFIN, 1, 77)), uint8(5))
	f.Add(joined(syn(1), syn(1)), uint8(11))
	f.Add(muxFrame(0, 2, 1, 0, 0), uint8(12))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		whole, wantOut, wantErr := scanned(b, len(b))
		split, gotOut, gotErr := scanned(b, 1+int(step))
		if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
			t.Fatalf("split: %v, whole: %v", gotErr, wantErr)
		}
		if wantErr == nil && (whole.skip != split.skip || whole.have != split.have || !bytes.Equal(wantOut, gotOut)) {
			t.Fatalf("split: skip %d, have %d, out %x, whole: %d, %d, %x", split.skip, split.have, gotOut, whole.skip, whole.have, wantOut)
		}
		if whole.windows.count() != split.windows.count() || whole.windows.count() > 5 {
			t.Fatalf("split follows %d streams, whole %d", split.windows.count(), whole.windows.count())
		}
	})
}

// scanned has an adapter read b in pieces of that many bytes, and returns what it has
// handed out.
func scanned(b []byte, step int) (a *adapter, out []byte, err error) {
	a = newAdapter(nil, false, 5)
	close(a.freed)
	p := make([]byte, muxHeader+step)
	for at := 0; at < len(b) && err == nil; at += step {
		n := copy(p, a.head[:a.have])
		n += copy(p[n:], b[at:min(at+step, len(b))])
		var kept int
		kept, err = a.scan(p[:n])
		out = append(out, p[:kept]...)
	}
	return a, out, err
}

// FuzzSession feeds a whole server whatever a peer may send, and then the end
// of the connection: it ends too, and keeps nothing.
func FuzzSession(f *testing.F) {
	o := openFrame(f)
	f.Add(joined(syn(1), syn(3), data(3, o), data(3, appendFrame(nil, frameData, 'x')), data(3, appendFrame(nil, frameFin))))
	f.Add(joined(syn(1), syn(3), data(3, o), data(3, appendRst(nil, code.ClientReset)), data(1, appendAbort(nil, 3, code.ClientReset))))
	f.Add(joined(syn(1), syn(3), data(3, o), muxFrame(0, muxWindowUpdate, flagFIN, 3, 0), data(1, appendFrame(nil, controlStop, 0, 0, 0, 3))))
	f.Add(joined(syn(1), data(1, appendFrame(nil, controlDrain))))
	f.Add(joined(syn(1), syn(3), data(3, []byte{1, 0xff, 0xff, 0xff})))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := net.Pipe()
		s := NewServer(plain(x), Config{})
		done := async(func() error { return s.Run(t.Context()) })
		go serveAll(s)
		go func() { _, _ = io.Copy(io.Discard, y) }()
		_, _ = y.Write(b)
		_ = y.Close()
		if err := await(t, done, "the session's end"); err == nil {
			t.Error("Run returned nil, though the peer ended it")
		}
		if n := s.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}
