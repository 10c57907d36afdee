package tunnel

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// littleHeld is what the streams of a test that have ended may hold together: a
// hundredth of what their peer has sent.
const littleHeld = 1 << 20

// A hoarder is a peer, made of bytes alone, that sends what it may and never says
// FIN, so that the other side's mux knows its streams for ever.
type hoarder struct {
	net.Conn
	t      testing.TB
	last   uint32
	server *Session
}

func newHoarder(t testing.TB) *hoarder {
	t.Helper()
	x, y := tcpPair(t)
	h := &hoarder{Conn: y, t: t, last: controlStream, server: NewServer(plain(x), Config{})}
	run(t, h.server)
	t.Cleanup(func() { _ = y.Close() })
	go discardAll(y)
	h.send(syn(controlStream))
	return h
}

func discardAll(nc net.Conn) {
	b := make([]byte, 64<<10)
	for {
		if _, err := nc.Read(b); err != nil {
			return
		}
	}
}

func (h *hoarder) send(b []byte) {
	h.t.Helper()
	if _, err := h.Write(b); err != nil {
		h.t.Fatal(err)
	}
}

// ask opens a stream and returns the server's request for it.
func (h *hoarder) ask() *Request {
	h.t.Helper()
	h.last += 2
	h.send(joined(syn(h.last), data(h.last, openFrame(h.t))))
	r, err := h.server.Accept(soon(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// junk sends n bytes of DATA frames in a stream.
func (h *hoarder) junk(id uint32, n int) {
	h.t.Helper()
	frame := appendFrame(nil, frameData, make([]byte, maxData/2)...)
	for ; n > 0; n -= len(frame) {
		h.send(data(id, frame))
	}
}

// caughtUp waits until the server has taken all that was sent.
func (h *hoarder) caughtUp() {
	h.t.Helper()
	h.ask().Refuse(code.StreamDenied, "")
	eventually(h.t, "all streams have ended", func() bool { return h.server.Streams() == 0 })
}

// wantHeld checks that what the process holds is soon no more than it was.
func wantHeld(t testing.TB, before int) {
	t.Helper()
	var heap int
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if heap, _ = memory(); heap-before < littleHeld {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are held, want less than %d", heap-before, littleHeld)
		}
	}
}

// TestHoardAfterEnd: what a peer goes on to send in streams that this side has
// ended is kept nowhere, however they have ended.
func TestHoardAfterEnd(t *testing.T) {
	const streams, each = 16, 7 << 20
	for name, end := range map[string]func(r *Request){
		"refused": func(r *Request) { r.Refuse(code.StreamDenied, "") },
		"reset":   func(r *Request) { st, _ := r.Accept(); _ = st.Reset(code.TargetReset) },
		"closed":  func(r *Request) { st, _ := r.Accept(); _ = st.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHoarder(t)
			before, _ := memory()
			for range streams {
				end(h.ask())
			}
			h.caughtUp()
			for id := uint32(3); id < 3+2*streams; id += 2 {
				h.junk(id, each)
			}
			h.caughtUp()
			wantHeld(t, before)
			if err := h.server.Err(); err != nil {
				t.Errorf("the session has ended: %v", err)
			}
		})
	}
}

// TestHoardBeforeEnd: what has come before the end, and was not read, goes with
// the end, not with the peer's FIN.
func TestHoardBeforeEnd(t *testing.T) {
	const streams, each = 4, 7 << 20
	for name, end := range map[string]func(h *hoarder, st *Stream){
		"reset":  func(_ *hoarder, st *Stream) { _ = st.Reset(code.TargetReset) },
		"closed": func(_ *hoarder, st *Stream) { _ = st.Close() },
		"aborted by the peer": func(h *hoarder, st *Stream) {
			h.send(data(controlStream, appendAbort(nil, st.ID(), code.ClientReset)))
			await(h.t, st.gone, "the peer's abort")
			_ = st.Reset(code.ClientReset) // as the copy does whose other side has failed
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHoarder(t)
			before, _ := memory()
			var open []*Stream
			for range streams {
				st, err := h.ask().Accept()
				if err != nil {
					t.Fatal(err)
				}
				h.junk(st.ID(), each)
				open = append(open, st)
			}
			for _, st := range open {
				eventually(t, "the bytes are here", func() bool { return st.win.stored() >= each })
				end(h, st)
			}
			h.caughtUp()
			wantHeld(t, before)
		})
	}
}

func (w *window) stored() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unread
}

// TestWindow: a peer may send so much of what nobody reads, and no more; what is
// read makes room for more.
func TestWindow(t *testing.T) {
	for _, tc := range []struct{ window, want int }{
		{0, maxWindow}, {1, initialWindow}, {initialWindow, initialWindow}, {1 << 20, 1 << 20}, {1 << 30, maxWindow},
	} {
		a, b := plainPair(t)
		p := startPair(t, a, b, Config{}, Config{Window: tc.window})
		c, s := p.open(t)
		// Every frame but the last is a whole one, and the reserve stays.
		const slack = maxData + frameHeader + windowReserve
		sent := 0
		write := func() {
			for {
				_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				n, err := c.Write(make([]byte, maxData))
				if sent += n; err != nil {
					return
				}
			}
		}
		eventually(t, "the window is full", func() bool { write(); return sent > tc.want-slack })
		if s.win.stored() > int64(tc.want) {
			t.Errorf("window %d: %d bytes are held, want %d at most", tc.window, s.win.stored(), tc.want)
		}
		_ = c.SetWriteDeadline(time.Time{})
		more := async(func() error {
			_, err := c.Write(make([]byte, tc.want))
			return err
		})
		if _, err := io.ReadFull(s, make([]byte, sent+tc.want)); err != nil {
			t.Errorf("window %d: reading on: %v", tc.window, err)
		}
		if err := await(t, more, "the writer"); err != nil {
			t.Errorf("window %d: writing on: %v", tc.window, err)
		}
	}
}

// TestHoardInFrame ends a stream in the middle of a frame, which the mux goes on to
// take in: it is let go of when it is whole.
func TestHoardInFrame(t *testing.T) {
	const size = maxUpdate
	h := newHoarder(t)
	before, _ := memory()
	st, err := h.ask().Accept()
	if err != nil {
		t.Fatal(err)
	}
	frame := muxFrame(0, muxData, 0, st.ID(), size, make([]byte, size)...)
	h.send(frame[:size/2])
	eventually(t, "the frame has begun", func() bool { return st.win.stored() == size })
	_ = st.Reset(code.TargetReset)
	eventually(t, "the stream has ended", func() bool { return h.server.Streams() == 0 })
	h.send(frame[size/2:])
	h.caughtUp()
	wantHeld(t, before)
}

// TestHoardTooMany: the same in streams for which there is no room.
func TestHoardTooMany(t *testing.T) {
	const streams, each = 64, 200 << 10
	h := newHoarder(t)
	before, _ := memory()
	for range cap(h.server.slots) {
		h.server.slots <- struct{}{}
	}
	for range streams {
		h.last += 2
		h.send(syn(h.last))
		h.junk(h.last, each)
	}
	eventually(t, "all are refused", func() bool {
		ws := &h.server.adapter.windows
		ws.mu.Lock()
		defer ws.mu.Unlock()
		refused := 0
		for _, w := range ws.byID {
			if w.near {
				refused++
			}
		}
		return refused == streams
	})
	for range cap(h.server.slots) {
		<-h.server.slots
	}
	h.caughtUp()
	wantHeld(t, before)
}

// TestHoardAtClient is the same hole at the side that opens streams, against a
// peer that refuses them and goes on.
func TestHoardAtClient(t *testing.T) {
	const streams, each = 16, 7 << 20
	r := rawServerSide(t)
	before, _ := memory()
	junk := appendFrame(nil, frameData, make([]byte, maxData/2)...)
	for range streams {
		st := r.open(t)
		r.write(t, appendRefused(nil, code.StreamDenied, ""))
		var refused *RefusedError
		if err := st.Answered(soon(t)); !errors.As(err, &refused) {
			t.Fatalf("Answered = %v, want the refusal", err)
		}
		for sent := 0; sent < each; sent += len(junk) {
			r.write(t, junk)
		}
	}
	wantHeld(t, before)
}
