package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a loopback connection.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// eventually waits for what no event announces.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	if err := SetUserTimeout(a, time.Second); err != nil {
		t.Errorf("SetUserTimeout of a net.Pipe: %v", err)
	}
	if err := SetNotSentLowat(a, 1<<10); err != nil {
		t.Errorf("SetNotSentLowat of a net.Pipe: %v", err)
	}
	if WaitSent(a, time.Minute) {
		t.Error("WaitSent of a net.Pipe: got true, nothing can know that")
	}
	if err := ResetClose(a); err != nil {
		t.Errorf("ResetClose of a net.Pipe: %v", err)
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write after ResetClose: got %v, want %v", err, io.ErrClosedPipe)
	}
}

func TestClosedSocket(t *testing.T) {
	c, _ := pair(t)
	c.Close()
	if err := SetUserTimeout(c, time.Second); err == nil {
		t.Error("SetUserTimeout of a closed socket: got no error")
	}
	if err := ResetClose(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ResetClose of a closed socket: got %v, want %v", err, net.ErrClosed)
	}
	if _, _, err := NewReader(c).ReadReady(func() []byte { return make([]byte, 1) }, func([]byte) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadReady of a closed socket: got %v, want %v", err, net.ErrClosed)
	}
}

// wrapped stands on a conn and says so, as tls.Conn does.
type wrapped struct {
	net.Conn
	closed bool
}

func (w *wrapped) NetConn() net.Conn { return w.Conn }

func (w *wrapped) Close() error {
	w.closed = true
	return w.Conn.Close()
}

func TestResetClose(t *testing.T) {
	for _, tc := range []struct {
		name  string
		close func(c net.Conn) error
		want  error
	}{
		{"reset", ResetClose, syscall.ECONNRESET},
		{"wrapped", func(c net.Conn) error { return ResetClose(&wrapped{Conn: c}) }, syscall.ECONNRESET},
		{"plain close, to compare", net.Conn.Close, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, s := pair(t)
			if err := tc.close(c); err != nil {
				t.Fatalf("closing: %v", err)
			}
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, tc.want) {
				t.Errorf("the peer's read: got %v, want %v", err, tc.want)
			}
		})
	}
	c, _ := pair(t)
	w := &wrapped{Conn: c}
	if _ = ResetClose(w); !w.closed {
		t.Error("ResetClose went past the wrapper's own Close")
	}
}

// store counts the buffers that are out.
type store struct {
	got, back atomic.Int64
	size      int
}

func (s *store) get() []byte {
	s.got.Add(1)
	return make([]byte, s.size)
}

func (s *store) put([]byte) { s.back.Add(1) }

func TestReadReady(t *testing.T) {
	c, s := pair(t)
	st := &store{size: 1024}
	type result struct {
		b   []byte
		err error
	}
	results := make(chan result, 1)
	read := func() {
		buf, n, err := NewReader(s).ReadReady(st.get, st.put)
		if n == 0 && buf != nil {
			t.Errorf("a buffer came with no bytes")
		}
		results <- result{buf[:n], err}
	}

	go read()
	// While nothing comes, the reader has tried once and holds no buffer.
	eventually(t, "the reader has tried and given its buffer back", func() bool {
		return st.got.Load() > 0 && st.got.Load() == st.back.Load()
	})
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.err != nil || string(r.b) != "hello" {
		t.Fatalf("got %q, %v; want hello", r.b, r.err)
	}
	if out := st.got.Load() - st.back.Load(); out != 1 {
		t.Fatalf("%d buffers are out after a read of one, want 1", out)
	}

	_ = s.SetReadDeadline(time.Now().Add(time.Millisecond))
	go read()
	if r := <-results; !errors.Is(r.err, os.ErrDeadlineExceeded) {
		t.Fatalf("with a deadline: got %q, %v", r.b, r.err)
	}
	_ = s.SetReadDeadline(time.Time{})

	_ = c.CloseWrite()
	go read()
	if r := <-results; r.err != io.EOF {
		t.Fatalf("after the peer's end: got %q, %v; want io.EOF itself", r.b, r.err)
	}
	if out := st.got.Load() - st.back.Load(); out != 1 {
		t.Fatalf("%d buffers are out after a deadline and an end, want still 1", out)
	}
}

func TestReadReadyReset(t *testing.T) {
	c, s := pair(t)
	_ = ResetClose(c)
	st := &store{size: 16}
	_, _, err := NewReader(s).ReadReady(st.get, st.put)
	var oe *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &oe) || oe.Op != "read" {
		t.Errorf("got %v, want a *net.OpError of read with ECONNRESET, as the conn's own Read", err)
	}
	if st.got.Load() != st.back.Load() {
		t.Error("a buffer stayed out after an error")
	}
}

// TestRead: a Reader's Read is the conn's own, of a socket and of what is none.
func TestRead(t *testing.T) {
	c, s := pair(t)
	r := NewReader(s)
	b := make([]byte, 4)
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of no bytes = %d, %v", n, err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hell", "o"} {
		if n, err := r.Read(b); string(b[:n]) != want || err != nil {
			t.Fatalf("Read = %q, %v; want %q", b[:n], err, want)
		}
	}
	_ = s.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := r.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read with a deadline = %d, %v", n, err)
	}
	_ = s.SetReadDeadline(time.Time{})
	_ = c.CloseWrite()
	if n, err := r.Read(b); n != 0 || err != io.EOF {
		t.Errorf("Read at the peer's end = %d, %v; want io.EOF itself", n, err)
	}
	x, y := net.Pipe()
	defer y.Close()
	x.Close()
	if n, err := NewReader(x).Read(b); n != 0 || err == nil {
		t.Errorf("Read of a closed pipe = %d, %v", n, err)
	}
}

// shout reads otherwise than its socket, although the socket is to be seen.
type shout struct{ *net.TCPConn }

func (s shout) Read(b []byte) (int, error) {
	n, err := s.TCPConn.Read(b)
	copy(b, bytes.ToUpper(b[:n]))
	return n, err
}

func TestReadReadyOfWrapper(t *testing.T) {
	c, s := pair(t)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	st := &store{size: 16}
	buf, n, err := NewReader(shout{s}).ReadReady(st.get, st.put)
	if got := string(buf[:n]); err != nil || got != "HELLO" {
		t.Errorf("got %q, %v; want the wrapper's own read, HELLO", got, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_, _ = b.Write([]byte("pipe"))
		b.Close()
	}()
	r := NewReader(a)
	if buf, n, err := r.ReadReady(st.get, st.put); err != nil || string(buf[:n]) != "pipe" {
		t.Errorf("from a net.Pipe: got %q, %v", buf[:n], err)
	}
	if buf, n, err := r.ReadReady(st.get, st.put); err != io.EOF || n != 0 || buf != nil {
		t.Errorf("from a closed net.Pipe: got %q, %d, %v; want io.EOF", buf, n, err)
	}
}

func TestAllocsOfReader(t *testing.T) {
	c, s := pair(t)
	r := NewReader(s)
	one := make([]byte, 64)
	get, put := func() []byte { return one }, func([]byte) {}
	msg := []byte("x")
	for name, read := range map[string]func() error{
		"Read":      func() error { _, err := r.Read(one); return err },
		"ReadReady": func() error { _, _, err := r.ReadReady(get, put); return err },
	} {
		if got := testing.AllocsPerRun(200, func() {
			if _, err := c.Write(msg); err != nil {
				t.Error(err)
			}
			if err := read(); err != nil {
				t.Error(err)
			}
		}); got != 0 {
			t.Errorf("got %v allocations a %s, want 0", got, name)
		}
	}
}
