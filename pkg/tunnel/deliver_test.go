package tunnel

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A sink takes what is delivered.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
	err error // what Write fails with
}

func (k *sink) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return 0, k.err
	}
	return k.buf.Write(p)
}

func (k *sink) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.buf.Len()
}

// delivered is what Deliver's done was called with.
type delivered struct {
	n   int64
	err error
}

func deliver(st *Stream, w io.Writer) <-chan delivered {
	ch := make(chan delivered, 2) // a second call would be seen by once
	st.Deliver(w, func(n int64, err error) { ch <- delivered{n, err} })
	return ch
}

// rests has a stream settle, as the session would a little later, and waits until
// its delivery has no goroutine.
func rests(t testing.TB, st *Stream) {
	t.Helper()
	eventually(t, "the delivery rests", func() bool {
		st.settle()
		st.win.mu.Lock()
		defer st.win.mu.Unlock()
		return st.win.resting != nil
	})
}

// TestDeliver sends data in pieces, with rests between them, the last time in the
// middle of a frame.
func TestDeliver(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	var k sink
	done := deliver(c, &k)
	want := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(want)
	for at, n := 0, 1; at < len(want); n *= 17 {
		rests(t, c)
		end := min(at+n, len(want))
		if _, err := s.Write(want[at:end]); err != nil {
			t.Fatal(err)
		}
		at = end
		eventually(t, "all has come", func() bool { return k.len() == at })
	}
	rests(t, c)
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := await(t, done, "the end"); got != (delivered{int64(len(want)), nil}) {
		t.Errorf("got %d bytes and error %v, want %d and none", got.n, got.err, len(want))
	}
	if !bytes.Equal(k.buf.Bytes(), want) {
		t.Error("other bytes were delivered than sent")
	}
}

// TestDeliverEnds ends a stream whose delivery rests, and one whose delivery waits,
// in every way.
func TestDeliverEnds(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		end  func(p *pair, near, far *Stream, k *sink)
		want func(error) bool
	}{
		"fin":          {func(_ *pair, _, far *Stream, _ *sink) { _ = far.CloseWrite() }, func(err error) bool { return err == nil }},
		"close":        {func(_ *pair, near, _ *Stream, _ *sink) { _ = near.Close() }, func(err error) bool { return err == net.ErrClosed }},
		"reset":        {func(_ *pair, near, _ *Stream, _ *sink) { _ = near.Reset(code.ClientReset) }, isReset(code.ClientReset, false)},
		"peer's reset": {func(_ *pair, _, far *Stream, _ *sink) { _ = far.Reset(code.TargetReset) }, isReset(code.TargetReset, true)},
		"loss": {func(p *pair, _, _ *Stream, _ *sink) { p.server.Close(code.Shutdown, "") }, func(err error) bool {
			var le *LossError
			return errors.As(err, &le)
		}},
		"deadline": {func(_ *pair, near, _ *Stream, _ *sink) { _ = near.SetReadDeadline(time.Now().Add(time.Millisecond)) }, func(err error) bool {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}},
		"writer": {func(_ *pair, _, far *Stream, k *sink) {
			k.mu.Lock()
			k.err = broken
			k.mu.Unlock()
			_, _ = far.Write([]byte("x"))
		}, func(err error) bool { return err == broken }},
	} {
		for _, resting := range []bool{true, false} {
			t.Run(map[bool]string{true: "resting/", false: "waiting/"}[resting]+name, func(t *testing.T) {
				p := newPair(t, Config{})
				near, far := p.open(t)
				var k sink
				done := deliver(near, &k)
				if resting {
					rests(t, near)
				}
				c.end(p, near, far, &k)
				if got := await(t, done, "the end"); !c.want(got.err) {
					t.Errorf("got error %v (%T)", got.err, got.err)
				}
				if len(done) != 0 {
					t.Error("done was called twice")
				}
			})
		}
	}
}

func isReset(c code.Code, remote bool) func(error) bool {
	return func(err error) bool {
		var re *ResetError
		return errors.As(err, &re) && *re == ResetError{Code: c, Remote: remote}
	}
}

// TestDeliverRaces lets streams come to rest and go on at the same time: none of
// what is sent gets stuck.
func TestDeliverRaces(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	var k sink
	done := deliver(c, &k)
	stop := make(chan struct{})
	var settling sync.WaitGroup
	settling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.settle()
			}
		}
	})
	const n = 1000
	for i := range n {
		if _, err := s.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			eventually(t, "all has come", func() bool { return k.len() == i+1 })
		}
	}
	close(stop)
	settling.Wait()
	_ = s.CloseWrite()
	if got := await(t, done, "the end"); got != (delivered{n, nil}) {
		t.Errorf("got %d bytes and error %v, want %d and none", got.n, got.err, n)
	}
	for i, b := range k.buf.Bytes() {
		if b != byte(i) {
			t.Fatalf("byte %d: got %d, want %d", i, b, byte(i))
		}
	}
}

// TestDeliverEmptyFrame wakes a delivery with a frame of the mux that brings
// nothing: it comes to rest again.
func TestDeliverEmptyFrame(t *testing.T) {
	x, y := tcpPair(t)
	server := NewServer(plain(x), Config{})
	run(t, server)
	t.Cleanup(func() { _ = y.Close() })
	if _, err := y.Write(joined(syn(1), syn(3), data(3, openFrame(t)))); err != nil {
		t.Fatal(err)
	}
	r, err := server.Accept(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := deliver(st, io.Discard)
	resting := func() bool {
		st.win.mu.Lock()
		defer st.win.mu.Unlock()
		return st.win.resting != nil
	}
	eventually(t, "the delivery rests", resting)
	recent := &server.recent
	recent.mu.Lock() // which it needs to run, and whoever would have it rest again
	if _, err := y.Write(muxFrame(0, muxData, 0, 3, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the frame wakes it", func() bool { return !resting() })
	recent.mu.Unlock()
	eventually(t, "the delivery rests again", resting)
	_ = st.Close()
	await(t, done, "the end")
}

// TestDesertWhileReading has a side close streams that it is reading from, whose
// peer has ended them with much still to be read: what lets go of the rest must not
// meet the Read in the mux, which locks in two orders.
func TestDesertWhileReading(t *testing.T) {
	p := newPair(t, Config{})
	data := make([]byte, 256<<10)
	for range 300 {
		client, server := p.open(t)
		if _, err := server.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			buf := make([]byte, 64)
			for n := 0; ; n++ {
				if _, err := client.Read(buf); err != nil {
					return
				}
				if n == 16 {
					go func() { _ = client.Close() }()
				}
			}
		}()
		await(t, read, "the end of a Read beside Close")
	}
	p.forgotten(t)
}
