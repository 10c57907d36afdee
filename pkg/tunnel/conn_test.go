package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestConn runs every subtest of nettest.TestConn on a Stream, in both roles.
func TestConn(t *testing.T) {
	for name, carriers := range map[string]func(testing.TB) (a, b Carrier){"TCP": plainPair, "Channel": channelPair} {
		for _, role := range []string{"Opener", "Acceptor"} {
			t.Run(name+role, func(t *testing.T) {
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					a, b := carriers(t)
					p := startPair(t, a, b, Config{}, Config{})
					c1, c2 := p.open(t)
					if role == "Acceptor" {
						c1, c2 = c2, c1
					}
					return c1, c2, func() {
						_, _ = c1.Close(), c2.Close()
						p.forgotten(t)
						p.close(t)
					}, nil
				})
			})
		}
	}
}

func TestHalfClose(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	request, answer := bytes.Repeat([]byte("q"), 3<<20), bytes.Repeat([]byte("a"), 6<<20)
	go func() {
		_, _ = c.Write(request)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, request) {
		t.Fatalf("got %d bytes, %v, want %d and a clean end", len(got), err, len(request))
	}
	go func() {
		_, _ = s.Write(answer)
		_ = s.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("got %d bytes, %v, want %d and a clean end", len(got), err, len(answer))
	}
	for _, st := range []*Stream{c, s} {
		if err := st.CloseWrite(); err != nil {
			t.Errorf("second CloseWrite: %v", err)
		}
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after CloseWrite: got %v, want net.ErrClosed", err)
		}
		if n, err := st.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read after the end: got %d, %v, want io.EOF", n, err)
		}
		_ = st.Close()
	}
	p.forgotten(t)
}

func TestDataBeforeTheAnswer(t *testing.T) {
	p := newPair(t, Config{})
	c := p.request(t)
	if _, err := c.Write([]byte("at once")); err != nil {
		t.Fatal(err)
	}
	r := p.accept(t)
	if r.Service != "db" || r.ClientAddress != "192.0.2.1:5" || r.StreamID() != c.ID() {
		t.Errorf("got request %+v of stream %d", r.Open, r.StreamID())
	}
	s, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "at once" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := c.Answered(soon(t)); err != nil {
		t.Errorf("Answered: %v", err)
	}
}

// TestCopies moves bytes with ReadFrom and WriteTo, from and to sockets.
func TestCopies(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	inner, outer := tcpPair(t)
	defer inner.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = outer.Write(want)
		_ = outer.Close()
	}()
	sent := async(func() error {
		n, err := c.ReadFrom(inner)
		if n != int64(len(want)) {
			t.Errorf("ReadFrom: got %d bytes, want %d", n, len(want))
		}
		return errors.Join(err, c.CloseWrite())
	})
	var got bytes.Buffer
	if n, err := s.WriteTo(&got); err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("WriteTo: got %d bytes, %v, want %d", n, err, len(want))
	}
	if err := await(t, sent, "ReadFrom"); err != nil {
		t.Errorf("ReadFrom: %v", err)
	}
}

type eofWriter struct{}

func (eofWriter) Write(p []byte) (int, error) { return 0, io.EOF }

// TestWriterEOF: only the stream's own io.EOF is an end.
func TestWriterEOF(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	_, _ = c.Write([]byte("x"))
	if _, err := s.WriteTo(eofWriter{}); err == nil {
		t.Error("WriteTo took its writer's io.EOF for the stream's end")
	}
	_, _ = s.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read(p []byte) (int, error) { return copy(p, "last"), r.err }

func TestReadFromError(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	broken := errors.New("broken source")
	if n, err := c.ReadFrom(failingReader{broken}); n != 4 || err != broken {
		t.Errorf("ReadFrom: got %d, %v, want 4 and the reader's error", n, err)
	}
	c.Abort(broken)
	got, err := io.ReadAll(s)
	if string(got) != "last" {
		t.Errorf("got %q before the reset, want what was written", got)
	}
	wantReset(t, err, code.Aborted, true)
	p.forgotten(t)
}

// TestDeadlineInsideFrames cuts Reads by deadlines at every byte of a slow
// peer's frames: nothing is lost.
func TestDeadlineInsideFrames(t *testing.T) {
	r := rawServerSide(t)
	c := r.open(t)
	frames := appendFrame(nil, frameOpened)
	frames = appendFrame(frames, frameData, []byte("abc")...)
	frames = appendRst(frames, code.TargetReset)
	var got []byte
	for i := range frames {
		r.write(t, frames[i:i+1])
		// The byte is there when the mux has counted it; then read it, and no more.
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		b, err := io.ReadAll(c)
		got = append(got, b...)
		if i < len(frames)-1 && !isTimeout(err) {
			t.Fatalf("after byte %d of the frames: %v", i, err)
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	b, err := io.ReadAll(c)
	wantReset(t, err, code.TargetReset, true)
	if got = append(got, b...); string(got) != "abc" {
		t.Errorf("got %q, want %q", got, "abc")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
