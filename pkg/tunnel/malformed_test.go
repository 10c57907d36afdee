package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

func muxFrame(version, typ byte, flags uint16, id, length uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{version, typ}, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, body...)
}

// syn opens a stream, data sends bytes in it.
func syn(id uint32) []byte { return muxFrame(0, muxWindowUpdate, flagSYN, id, 0) }

func data(id uint32, b []byte) []byte {
	var out []byte
	for ; len(b) > 64<<10; b = b[64<<10:] {
		out = append(out, muxFrame(0, muxData, 0, id, 64<<10, b[:64<<10]...)...)
	}
	return append(out, muxFrame(0, muxData, 0, id, uint32(len(b)), b...)...)
}

func joined(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func openFrame(t testing.TB) []byte {
	t.Helper()
	b, err := Open{Service: "db"}.frame()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serveAll accepts every stream and reads it to its end.
func serveAll(s *Session) {
	for {
		r, err := s.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			if st, err := r.Accept(); err == nil {
				_, _ = io.Copy(io.Discard, st)
				_ = st.Close()
			}
		}()
	}
}

// attack lets a peer that writes b talk to a server, which reads all streams.
// The returned server has ended if b breaks the protocol.
func attack(t *testing.T, b []byte) (server *Session, carrier *plainCarrier, peer net.Conn) {
	t.Helper()
	x, y := tcpPair(t)
	carrier = plain(x)
	server = NewServer(carrier, Config{})
	run(t, server)
	go serveAll(server)
	go func() { _, _ = io.Copy(io.Discard, y) }()
	t.Cleanup(func() { _ = y.Close() })
	go func() { _, _ = y.Write(b) }()
	return server, carrier, y
}

func wantProtocol(t *testing.T, s *Session, c *plainCarrier) {
	t.Helper()
	await(t, s.Done(), "the end of the session")
	if err := s.Err(); !errors.Is(err, errProtocol) {
		t.Errorf("session ended with %v, want the peer's breach of protocol", err)
	}
	if err := s.Err(); err != nil && strings.Contains(err.Error(), "mux refused") {
		t.Error("the mux found it, not the adapter: yamux spins when it ends by itself")
	}
	if c.code != code.Protocol {
		t.Errorf("carrier closed with %v, want %v", c.code, code.Protocol)
	}
	if n := s.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestMalformedMux(t *testing.T) {
	control, opened := syn(1), joined(syn(1), syn(3), data(3, openFrame(t)))
	var grow []byte
	for range 1<<31/maxUpdate + 1 {
		grow = append(grow, muxFrame(0, muxWindowUpdate, 0, 3, maxUpdate)...)
	}
	for name, b := range map[string][]byte{
		"version":           joined(control, muxFrame(1, muxData, 0, 1, 0)),
		"ping":              joined(control, muxFrame(0, 2, flagSYN, 0, 7)),
		"goaway":            joined(control, muxFrame(0, 3, 0, 0, 0)),
		"type":              joined(control, muxFrame(0, 9, 0, 1, 0)),
		"stream 0":          joined(control, muxFrame(0, muxData, 0, 0, 0)),
		"even stream":       joined(control, syn(2)),
		"SYN twice":         joined(opened, syn(3)),
		"SYN of control":    joined(control, control),
		"ACK":               joined(opened, muxFrame(0, muxWindowUpdate, flagACK, 3, 0)),
		"RST":               joined(opened, muxFrame(0, muxWindowUpdate, flagRST, 3, 0)),
		"flag":              joined(opened, muxFrame(0, muxWindowUpdate, 16, 3, 0)),
		"FIN twice":         joined(control, syn(3), muxFrame(0, 0, flagFIN, 3, 0), muxFrame(0, 0, flagFIN, 3, 0)),
		"long data":         joined(opened, muxFrame(0, muxData, 0, 3, maxUpdate+1)),
		"long update":       joined(opened, muxFrame(0, muxWindowUpdate, 0, 3, 1<<32-1)),
		"window overflow":   joined(opened, grow),
		"no control":        joined(syn(3), data(3, openFrame(t))),
		"control after":     joined(syn(3), control),
		"control FIN":       joined(control, muxFrame(0, muxWindowUpdate, flagFIN, 1, 0)),
		"text":              []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"),
		"control cut frame": joined(control, data(1, []byte{16, 0}), muxFrame(0, muxWindowUpdate, flagFIN, 1, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			s, c, _ := attack(t, b)
			wantProtocol(t, s, c)
		})
	}
}

// TestRefusedAndKept: streams that were refused and that the peer does not
// close are counted; beyond what an honest peer has the session ends.
func TestRefusedAndKept(t *testing.T) {
	x, y := tcpPair(t)
	c := plain(x)
	s := NewServer(c, Config{MaxStreams: 1})
	run(t, s)
	mux := startMux(t, y, true)
	for range 2 + 1 + backlog + 2 { // more than control, the one stream, the refused
		if _, err := mux.OpenStream(); err != nil {
			break
		}
	}
	wantProtocol(t, s, c)
}

// TestControlNotRead: a peer that takes no control frames cannot make this side
// keep them without bound.
func TestControlNotRead(t *testing.T) {
	a, b := plainPair(t)
	defer b.Close()
	c := a.(*plainCarrier)
	s := NewServer(c, Config{}) // no control stream comes
	run(t, s)
	for range maxQueue/len(appendStop(nil, 3)) + 2 {
		s.tell(appendStop(nil, 3))
	}
	wantProtocol(t, s, c)
}

// TestFloodOfSYN: streams opened faster than they are taken are reset by the
// mux, and nothing of them stays.
func TestFloodOfSYN(t *testing.T) {
	b := syn(1)
	for i := range 20_000 {
		b = append(b, syn(uint32(3+2*i))...)
	}
	s, _, y := attack(t, b)
	eventually(t, "something happens", func() bool { return s.adapter.windows.count() > 1 || s.Err() != nil })
	if n, most := s.adapter.windows.count(), defaultMaxStreams+backlog+2; n > most {
		t.Errorf("%d streams are followed, at most %d may be", n, most)
	}
	_ = y.Close()
	await(t, s.Done(), "the session's end")
}

// TestDataBeyondWindow: a peer that sends more than it was allowed is caught by
// the mux, which counts what is unread.
func TestDataBeyondWindow(t *testing.T) {
	x, y := tcpPair(t)
	defer y.Close()
	c := plain(x)
	s := NewServer(c, Config{}) // nobody accepts: nothing is read
	run(t, s)
	go func() { _, _ = io.Copy(io.Discard, y) }()
	frames := openFrame(t)
	for range maxWindow/maxData + 2 {
		frames = appendFrame(frames, frameData, make([]byte, maxData)...)
	}
	go func() { _, _ = y.Write(joined(syn(1), syn(3), data(3, frames))) }()
	wantProtocol(t, s, c)
}

func TestMalformedFrames(t *testing.T) {
	o := openFrame(t)
	head := func(typ frameType, n int) []byte {
		b := make([]byte, 4)
		putHeader(b, typ, n)
		return b
	}
	long, _ := canon.Marshal(Open{Service: strings.Repeat("s", maxService+1)})
	for name, b := range map[string][]byte{
		"type 0":          joined(o, appendFrame(nil, 0)),
		"type 99":         joined(o, appendFrame(nil, 99)),
		"control type":    joined(o, appendAbort(nil, 3, code.Aborted)),
		"OPEN twice":      joined(o, o),
		"OPENED":          joined(o, appendFrame(nil, frameOpened)),
		"REFUSED":         joined(o, appendRefused(nil, code.Limit, "")),
		"DATA first":      appendFrame(nil, frameData, 'x'),
		"FIN first":       appendFrame(nil, frameFin),
		"OPENED first":    appendFrame(nil, frameOpened),
		"DATA of 0":       joined(o, head(frameData, 0)),
		"DATA of 64K+1":   joined(o, head(frameData, maxData+1)),
		"DATA of u24":     joined(o, head(frameData, 1<<24-1)),
		"FIN with a body": joined(o, appendFrame(nil, frameFin, 1)),
		"RST of 1":        joined(o, appendFrame(nil, frameRst, 1)),
		"RST of 3":        joined(o, appendFrame(nil, frameRst, 1, 2, 3)),
		"OPEN of 0":       head(frameOpen, 0),
		"OPEN of u24":     head(frameOpen, 1<<24-1),
		"OPEN text":       appendFrame(nil, frameOpen, []byte("hello")...),
		"OPEN long name":  appendFrame(nil, frameOpen, long...),
		"OPEN unsorted":   appendFrame(nil, frameOpen, 0xa2, 2, 0x61, 'a', 1, 0x61, 's'),
		"OPEN long int":   appendFrame(nil, frameOpen, 0xa1, 0x18, 1, 0x61, 's'),
		"OPEN empty":      appendFrame(nil, frameOpen, 0xa0),
		"OPEN newline":    appendFrame(nil, frameOpen, 0xa1, 1, 0x61, '\n'),
		"OPEN trailing":   appendFrame(nil, frameOpen, 0xa1, 1, 0x61, 's', 0),
	} {
		t.Run(name, func(t *testing.T) {
			s, c, _ := attack(t, joined(syn(1), syn(3), data(3, b)))
			wantProtocol(t, s, c)
		})
	}
}

func TestMalformedControl(t *testing.T) {
	for name, b := range map[string][]byte{
		"ABORT of 5":     appendFrame(nil, controlAbort, 0, 0, 0, 3, 1),
		"ABORT of 7":     appendFrame(nil, controlAbort, 0, 0, 0, 3, 1, 1, 1),
		"STOP of 0":      appendFrame(nil, controlStop),
		"STOP of 5":      appendFrame(nil, controlStop, 0, 0, 0, 3, 1),
		"PROBE of 3":     appendFrame(nil, controlProbe, 0, 0, 3),
		"PROGRESS of 11": appendFrame(nil, controlProgress, make([]byte, 11)...),
		"PROGRESS of 13": appendFrame(nil, controlProgress, make([]byte, 13)...),
		"too long":       {0x63, 0, 0x10, 1},
		"u24":            {17, 255, 255, 255},
	} {
		t.Run(name, func(t *testing.T) {
			s, c, _ := attack(t, joined(syn(1), data(1, b)))
			wantProtocol(t, s, c)
		})
	}
	t.Run("unknown and stale are passed over", func(t *testing.T) {
		b := appendFrame(nil, 99, make([]byte, maxControl)...)
		b = appendAbort(b, 77, code.Aborted)
		b = appendFrame(b, controlStop, 0, 0, 0, 1)
		b = appendFrame(b, controlDrain, []byte("bye")...)
		s, _, _ := attack(t, joined(syn(1), data(1, b)))
		await(t, s.Draining(), "the frame behind them")
		if s.Err() != nil {
			t.Errorf("session ended: %v", s.Err())
		}
	})
}

// TestMalformedAnswers is what an acceptor may not send.
func TestMalformedAnswers(t *testing.T) {
	opened := appendFrame(nil, frameOpened)
	for name, b := range map[string][]byte{
		"DATA before OPENED":   appendFrame(nil, frameData, 'x'),
		"FIN before OPENED":    appendFrame(nil, frameFin),
		"OPENED twice":         joined(opened, opened),
		"REFUSED after OPENED": joined(opened, appendRefused(nil, code.Limit, "")),
		"OPEN":                 joined(opened, openFrame(t)),
		"OPEN first":           openFrame(t),
		"OPENED with a body":   appendFrame(nil, frameOpened, 1),
		"REFUSED of 1":         appendFrame(nil, frameRefused, 1),
		"REFUSED too long":     appendFrame(nil, frameRefused, make([]byte, code.MaxReason+3)...),
		"type 0":               joined(opened, appendFrame(nil, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			r := rawServerSide(t)
			st := r.open(t)
			r.write(t, b)
			_, err := io.Copy(io.Discard, st)
			if !errors.Is(err, errProtocol) {
				t.Errorf("Read: got %v, want the breach of protocol", err)
			}
			wantProtocol(t, r.client, r.carrier)
			if _, err := st.Write([]byte("x")); err == nil {
				t.Error("Write after it: no error")
			}
		})
	}
	t.Run("SYN", func(t *testing.T) {
		r := rawServerSide(t)
		_, _ = r.mux.OpenStream()
		wantProtocol(t, r.client, r.carrier)
	})
}

// TestDataAfterFin: nothing reads on after FIN, so such bytes are not seen at
// all: they take up window until the stream is closed, are kept nowhere, and reach
// nobody.
func TestDataAfterFin(t *testing.T) {
	r := rawServerSide(t)
	st := r.open(t)
	b := appendFrame(nil, frameOpened)
	b = appendFrame(b, frameData, 'a')
	b = appendFrame(b, frameFin)
	r.write(t, appendFrame(b, frameData, 'b'))
	if got, err := io.ReadAll(st); err != nil || string(got) != "a" {
		t.Errorf("got %q, %v, want %q and a clean end", got, err, "a")
	}
	if n, err := st.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read again: got %d, %v, want io.EOF", n, err)
	}
}

// TestOpenNeverSent: a stream without OPEN, or with half of one, is dropped.
func TestOpenNeverSent(t *testing.T) {
	for name, sent := range map[string][]byte{"nothing": nil, "half": openFrame(t)[:5]} {
		t.Run(name, func(t *testing.T) {
			x, y := tcpPair(t)
			s := NewServer(plain(x), Config{Patience: 50_000_000})
			run(t, s)
			mux := startMux(t, y, true)
			control, err := mux.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			st, err := mux.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = st.Write(sent)
			if b := readFrame(t, control, controlAbort); binary.BigEndian.Uint32(b) != st.StreamID() {
				t.Errorf("ABORT names stream %d", binary.BigEndian.Uint32(b))
			}
			if b := readFrame(t, st, frameRst); code.Code(binary.BigEndian.Uint16(b)) != code.Timeout {
				t.Errorf("RST with %v, want %v", code.Code(binary.BigEndian.Uint16(b)), code.Timeout)
			}
			_ = st.Close()
			eventually(t, "the server forgets it", func() bool {
				return s.Streams() == 0 && len(s.slots) == 0 && s.mux.NumStreams() == 1
			})
		})
	}
}
