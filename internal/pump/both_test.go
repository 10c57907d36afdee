package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/testenv"
)

// A stream is a Conn that is no socket, with what a tunnel's stream has.
type stream struct {
	in  *io.PipeReader
	out *io.PipeWriter

	mu     sync.Mutex
	abort  error
	closed bool
}

// newStream returns a stream and its far side.
func newStream() (near, far *stream) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &stream{in: r1, out: w2}, &stream{in: r2, out: w1}
}

func (s *stream) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *stream) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *stream) CloseWrite() error           { return s.out.Close() }

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.in.Close()
	return s.out.CloseWithError(io.ErrUnexpectedEOF)
}

// An aborting stream passes the abort on to its far side.
type abortingStream struct{ *stream }

func (s abortingStream) Abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = err
	_ = s.in.CloseWithError(err)
	_ = s.out.CloseWithError(err)
}

// An opaque stream copies by itself.
type opaqueStream struct {
	abortingStream
	readFrom, writeTo *int
}

func (s opaqueStream) ReadFrom(r io.Reader) (int64, error) {
	*s.readFrom++
	return io.Copy(struct{ io.Writer }{s.stream}, r)
}

func (s opaqueStream) WriteTo(w io.Writer) (int64, error) {
	*s.writeTo++
	return io.Copy(w, struct{ io.Reader }{s.stream})
}

// A delivering stream copies from itself in goroutines of its own.
type deliveringStream struct {
	abortingStream
	deliver *int
}

func (s deliveringStream) Deliver(w io.Writer, done func(n int64, err error)) {
	*s.deliver++
	go func() { done(io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{s.stream})) }()
}

// streams are the kinds of Conn that Both meets beside sockets.
func streams(t *testing.T, test func(t *testing.T, near Conn, inner, far *stream)) {
	t.Run("plain", func(t *testing.T) {
		near, far := newStream()
		test(t, near, near, far)
	})
	t.Run("abort", func(t *testing.T) {
		near, far := newStream()
		test(t, abortingStream{near}, near, far)
	})
	t.Run("opaque", func(t *testing.T) {
		near, far := newStream()
		var rf, wt int
		test(t, opaqueStream{abortingStream{near}, &rf, &wt}, near, far)
		if rf != 1 || wt != 1 {
			t.Errorf("ReadFrom was used %d times and WriteTo %d times, want once each", rf, wt)
		}
	})
	t.Run("deliver", func(t *testing.T) {
		near, far := newStream()
		var n int
		test(t, deliveringStream{abortingStream{near}, &n}, near, far)
		if n != 1 {
			t.Errorf("Deliver was used %d times, want once", n)
		}
	})
}

func startStream(t *testing.T, near Conn) *copying {
	a, left := pair(t)
	_, right := pair(t) // of no use but for its addresses
	soon(left)
	c := &copying{left: left, right: right}
	c.run(t, func(ctx context.Context) Result { return Both(ctx, a, near) })
	return c
}

func TestBothWithStream(t *testing.T) {
	streams(t, func(t *testing.T, near Conn, _, far *stream) {
		c := startStream(t, near)
		exchange(t, c.left, far)
		_ = c.left.CloseWrite()
		if got, err := io.ReadAll(far); err != nil || len(got) != 0 {
			t.Fatalf("the stream's far side: %q, %v; want an end", got, err)
		}
		if _, err := far.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		_ = far.CloseWrite()
		if got, err := io.ReadAll(c.left); err != nil || string(got) != "answer" {
			t.Fatalf("the socket's far side: %q, %v; want the answer", got, err)
		}
		if r := c.wait(t); r != (Result{AToB: 1, BToA: 7}) {
			t.Errorf("got %+v", r)
		}
	})
}

// The client's reset ends the stream by an abort that says what happened.
func TestBothSocketResets(t *testing.T) {
	streams(t, func(t *testing.T, near Conn, inner, far *stream) {
		c := startStream(t, near)
		exchange(t, c.left, far)
		_ = sock.ResetClose(c.left)
		if _, err := far.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the stream's far side read %v, want an abort", err)
		}
		var e *Error
		if r := c.wait(t); !errors.As(r.Err, &e) || e.Side != A || e.Op != Read || !errors.Is(e, syscall.ECONNRESET) {
			t.Errorf("got %v, want a failure of reading side a with ECONNRESET", r.Err)
		}
		if _, ok := near.(interface{ Abort(error) }); !ok {
			return
		}
		if !errors.As(inner.abort, &e) || e.Side != A || e.Op != Read {
			t.Errorf("the stream was aborted with %v, want the client's reset", inner.abort)
		}
	})
}

// The stream's abort reaches the client as a reset, behind what was written
// before it.
func TestBothStreamAborts(t *testing.T) {
	streams(t, func(t *testing.T, near Conn, _, far *stream) {
		c := startStream(t, near)
		exchange(t, c.left, far)
		if _, err := far.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		// As when the path of the stream's channel is lost: a socket's error,
		// but not this socket's.
		cause := &net.OpError{Op: "read", Net: "tcp", Source: c.right.LocalAddr(), Addr: c.right.RemoteAddr(), Err: syscall.ECONNRESET}
		_ = far.out.CloseWithError(cause)
		_ = far.in.CloseWithError(cause)
		got, err := io.ReadAll(c.left)
		if string(got) != "last words" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %q and %v, want the last words and ECONNRESET", got, err)
		}
		var e *Error
		if r := c.wait(t); !errors.As(r.Err, &e) || e.Side != B || e.Op != Read || !errors.Is(e, cause) {
			t.Errorf("got %v, want a failure of reading side b with its cause", r.Err)
		}
	})
}

// An endingStream says by itself that it has ended; its Read and Write do not.
type endingStream struct {
	abortingStream
	ends *atomic.Pointer[func(error)]
}

func (s endingStream) OnEnd(f func(error)) {
	if f == nil {
		s.ends.Store(nil)
		return
	}
	s.ends.Store(&f)
}

// A copy whose two directions both wait for the socket, which neither takes nor
// gives anything, ends with the stream.
func TestBothStreamEndsUnseen(t *testing.T) {
	for _, full := range []bool{false, true} {
		near, far := newStream()
		s := endingStream{abortingStream{near}, &atomic.Pointer[func(error)]{}}
		c := startStream(t, s)
		exchange(t, c.left, far)
		if full {
			go func() { // until the copy ends
				for {
					if _, err := far.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}()
		}
		f := *s.ends.Load()
		cause := errors.New("it was cut")
		watch := testenv.Start(t)
		f(cause)
		r := c.wait(t)
		var e *Error
		if !errors.As(r.Err, &e) || e.Side != B || !errors.Is(e, cause) {
			t.Errorf("full %v: got %v, want a failure of side b with its cause", full, r.Err)
		}
		if took := watch.Took(); took > flushTime+5*time.Second {
			t.Errorf("full %v: it took %v", full, took)
		}
		if _, err := io.Copy(io.Discard, c.left); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("full %v: the client reads %v, want a reset", full, err)
		}
		if s.ends.Load() != nil {
			t.Errorf("full %v: the stream still has somebody to tell", full)
		}
		f(errors.New("too late")) // and does nothing: no goroutine is left by it
	}
}

// Bytes that the client's kernel has no room for yet still come before the
// reset, when the client reads.
func TestBothFlushesBeforeReset(t *testing.T) {
	near, far := newStream()
	a, left := pair(t)
	soon(left)
	_ = left.SetReadBuffer(16 << 10)
	_ = a.SetWriteBuffer(2 << 20)
	c := &copying{left: left}
	c.run(t, func(ctx context.Context) Result { return Both(ctx, a, abortingStream{near}) })
	const size = 512 << 10
	if _, err := far.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	_ = far.out.CloseWithError(errors.New("reset"))
	if n, err := io.Copy(io.Discard, left); n != size || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %d bytes and %v, want %d and ECONNRESET", n, err, size)
	}
	c.wait(t)
}

// A stream that takes no more is a failure of writing to it.
func TestBothStreamWriteFails(t *testing.T) {
	streams(t, func(t *testing.T, near Conn, _, far *stream) {
		c := startStream(t, near)
		exchange(t, c.left, far)
		cause := &net.OpError{Op: "read", Net: "tcp", Source: c.right.LocalAddr(), Addr: c.right.RemoteAddr(), Err: syscall.ETIMEDOUT}
		_ = far.in.CloseWithError(cause)
		if _, err := c.left.Write([]byte("into the void")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.left.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client's read: got %v, want ECONNRESET", err)
		}
		var e *Error
		if r := c.wait(t); !errors.As(r.Err, &e) || e.Side != B || e.Op != Write || !errors.Is(e, cause) {
			t.Errorf("got %v, want a failure of writing side b with its cause", r.Err)
		}
	})
}

// A large transfer out of a conn that cannot say when it is ready.
func TestBothStreamBulk(t *testing.T) {
	streams(t, func(t *testing.T, near Conn, _, far *stream) {
		c := startStream(t, near)
		const size = 3 << 20
		go func() {
			b := make([]byte, 100_000)
			for left := size; left > 0; left -= len(b) {
				b = b[:min(len(b), left)]
				if _, err := far.Write(b); err != nil {
					t.Errorf("writing: %v", err)
				}
			}
			_ = far.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, c.left); n != size || err != nil {
			t.Errorf("got %d bytes, %v; want %d", n, err, size)
		}
		_ = c.left.CloseWrite()
		_, _ = io.ReadAll(far)
		if r := c.wait(t); r != (Result{BToA: size}) {
			t.Errorf("got %+v", r)
		}
	})
}
