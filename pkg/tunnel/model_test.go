package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
)

// A side is what the model knows of one end of a stream.
type side struct {
	st      *Stream
	peer    *side
	seed    int
	written int // bytes that Write took
	read    int
	eof     bool
	fin     bool        // CloseWrite or Close was called in time
	closed  bool        // Close was called
	resets  []code.Code // Reset was called with, before any Close
	flying  chan written
}

type written struct {
	n   int
	err error
}

// A world is two sessions, their streams, and what may have happened to them.
type world struct {
	*pair
	sides   []*side
	refused map[*side]code.Code
	lost    bool
}

// stuff is what the side sends, by position.
func (s *side) stuff(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((at+i)*7 + (at+i)>>8 + s.seed)
	}
	return b
}

// explained reports whether err is one that the model can account for.
func (w *world) explained(s *side, err error, reading bool) bool {
	var reset *ResetError
	var refused *RefusedError
	var loss *LossError
	switch {
	case err == nil, isTimeout(err):
		return true
	case err == io.EOF:
		return reading && s.peer != nil && s.peer.fin
	case errors.As(err, &refused):
		c, ok := w.refused[s]
		return ok && c == refused.Code
	case errors.As(err, &loss):
		return w.lost
	case errors.Is(err, net.ErrClosed): // after LossError, whose cause may be one
		return s.closed || !reading && s.fin
	case errors.As(err, &reset) && !reset.Remote:
		return slices.Contains(s.resets, reset.Code)
	case errors.As(err, &reset) && s.peer != nil:
		stopped := !reading && s.peer.closed && reset.Code == code.Aborted
		return stopped || slices.Contains(s.peer.resets, reset.Code)
	}
	return false
}

func (w *world) open(t *rapid.T) {
	st, err := w.client.Open(context.Background(), Open{Service: "s"})
	if err != nil {
		if !w.lost {
			t.Fatalf("Open: %v", err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := w.server.Accept(ctx)
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	c := &side{st: st, seed: len(w.sides)}
	w.sides = append(w.sides, c)
	if rapid.IntRange(0, 4).Draw(t, "refuse") == 0 {
		w.refused[c] = code.StreamDenied
		r.Refuse(code.StreamDenied, "no")
		return
	}
	if st, err = r.Accept(); err != nil {
		t.Fatalf("Request.Accept: %v", err)
	}
	s := &side{st: st, seed: len(w.sides), peer: c}
	c.peer = s
	w.sides = append(w.sides, s)
}

func (w *world) write(t *rapid.T, s *side, n int) {
	_ = s.st.SetWriteDeadline(time.Now().Add(2 * time.Millisecond))
	got, err := s.st.Write(s.stuff(s.written, n))
	s.written += got
	if !w.explained(s, err, false) || err == nil && got != n {
		t.Fatalf("Write: got %d of %d, %v", got, n, err)
	}
	_ = s.st.SetWriteDeadline(time.Time{})
}

func (w *world) read(t *rapid.T, s *side, n int) error {
	_ = s.st.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	b := make([]byte, n)
	got, err := s.st.Read(b)
	if !w.explained(s, err, true) {
		t.Fatalf("Read: got %d, %v", got, err)
	}
	if got > 0 {
		if string(b[:got]) != string(s.peer.stuff(s.read, got)) {
			t.Fatalf("Read at %d: got other bytes than were written", s.read)
		}
		if s.eof {
			t.Fatal("bytes after io.EOF")
		}
	}
	s.read += got
	s.eof = s.eof || err == io.EOF
	return err
}

// fly writes without a deadline, more than a window may hold.
func (s *side) fly() {
	s.flying = make(chan written, 1)
	b := s.stuff(s.written, 600<<10)
	go func() {
		n, err := s.st.Write(b)
		s.flying <- written{n, err}
	}()
}

func (w *world) land(t *rapid.T, s *side) {
	if s.flying == nil {
		return
	}
	select {
	case r := <-s.flying:
		s.written += r.n
		s.flying = nil
		if !w.explained(s, r.err, false) {
			t.Fatalf("Write: %d, %v", r.n, r.err)
		}
	case <-time.After(patience):
		t.Fatal("a Write hangs")
	}
}

// settle ends what is open and checks that every byte and end has arrived.
func (w *world) settle(t *rapid.T) {
	for _, s := range w.sides { // first read what lets Writes go on
		for end := time.Now().Add(patience); s.read < 16<<20; {
			if err := w.read(t, s, 64<<10); err != nil && (!isTimeout(err) || s.peer == nil || s.peer.flying == nil || len(s.peer.flying) > 0) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("reading does not come to an end")
			}
		}
	}
	for _, s := range w.sides {
		w.land(t, s)
		if err := s.st.CloseWrite(); !w.explained(s, err, false) {
			t.Fatalf("CloseWrite: %v", err)
		} else if err == nil {
			s.fin = true
		}
	}
	for _, s := range w.sides {
		err := w.read(t, s, 64<<10)
		for end := time.Now().Add(patience); err == nil || isTimeout(err); err = w.read(t, s, 64<<10) {
			if time.Now().After(end) {
				t.Fatal("a Read does not come to an end")
			}
		}
		calm := s.peer != nil && !s.closed && !s.peer.closed && len(s.resets)+len(s.peer.resets) == 0 && !w.lost
		if calm && err != io.EOF {
			t.Fatalf("a stream that nothing happened to ends with %v", err)
		}
		if s.eof && s.read != s.peer.written {
			t.Fatalf("io.EOF after %d bytes of %d", s.read, s.peer.written)
		}
		if s.peer != nil && s.read > s.peer.written && !w.lost {
			t.Fatalf("read %d bytes of %d", s.read, s.peer.written)
		}
	}
	for _, s := range w.sides {
		_ = s.st.Close()
	}
}

// TestModel drives streams at random and checks that bytes, ends, aborts,
// refusals and losses are what the model says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := plainPair(t)
		w := &world{pair: &pair{NewClient(a, Config{}), NewServer(b, Config{})}, refused: map[*side]code.Code{}}
		go func() { _ = w.client.Run(context.Background()) }()
		go func() { _ = w.server.Run(context.Background()) }()
		defer w.close(t)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			w.step(rt, a)
		}
		w.settle(rt)
		if !w.lost {
			w.forgotten(t)
			return
		}
		await(t, w.client.Done(), "the client's end")
		await(t, w.server.Done(), "the server's end")
		if n := w.client.Streams() + w.server.Streams(); n != 0 {
			rt.Fatalf("%d streams are left after the loss", n)
		}
	})
}

func (w *world) step(t *rapid.T, carrier Carrier) {
	action := rapid.IntRange(0, 60).Draw(t, "action")
	if len(w.sides) == 0 || action < 6 && len(w.sides) < 10 {
		if !w.lost {
			w.open(t)
		}
		return
	}
	s := w.sides[rapid.IntRange(0, len(w.sides)-1).Draw(t, "side")]
	size := rapid.SampledFrom([]int{1, 5, 1000, 64 << 10, 300 << 10})
	switch {
	case action < 25 && s.flying == nil:
		w.write(t, s, size.Draw(t, "size"))
	case action < 45 && s.peer != nil:
		_ = w.read(t, s, size.Draw(t, "size"))
	case action < 50 && s.flying == nil:
		s.fly()
	case action < 54 && s.flying == nil:
		if err := s.st.CloseWrite(); !w.explained(s, err, false) {
			t.Fatalf("CloseWrite: %v", err)
		} else if err == nil {
			s.fin = true
		}
	case action < 57:
		s.fin, s.closed = true, true
		_ = s.st.Close()
	case action < 60:
		c := rapid.SampledFrom([]code.Code{code.ClientReset, code.TargetReset, code.Aborted}).Draw(t, "code")
		if !s.closed {
			s.resets = append(s.resets, c)
		}
		_ = s.st.Reset(c)
	case action == 60 && rapid.IntRange(0, 2).Draw(t, "lose") == 0:
		w.lost = true
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			w.client.Close(code.OK, "")
		case 1:
			w.server.Close(code.Shutdown, "")
		default:
			_ = carrier.(*plainCarrier).Conn.Close()
		}
	}
}
