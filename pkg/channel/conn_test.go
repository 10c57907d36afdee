package channel

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvert-net/culvert/pkg/code"
)

func TestNetConn(t *testing.T) {
	paths := map[string]func(testing.TB) (net.Conn, net.Conn){
		"tcp":  tcpPair,
		"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				a, b := path(t)
				x, y := connPair(t, a, b, Options{Linger: 100 * time.Millisecond})
				return x, y, func() {
					_ = x.Close()
					_ = y.Close()
				}, nil
			})
		})
	}
}

func TestBytesBothWays(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite.String(), func(t *testing.T) {
			a, b := tcpPair(t)
			x, y := connPair(t, a, b, Options{Suite: suite})
			data := make([]byte, 8<<20)
			r := rand.NewChaCha8([32]byte{1})
			_, _ = r.Read(data)
			errs := make(chan error, 2)
			copyOut := func(c *Conn) {
				for rest := data; len(rest) > 0; {
					n := min(len(rest), rand.IntN(200<<10)+1)
					if _, err := c.Write(rest[:n]); err != nil {
						errs <- err
						return
					}
					rest = rest[n:]
				}
				errs <- nil
			}
			go copyOut(x)
			go copyOut(y)
			for _, c := range []*Conn{x, y} {
				go func() {
					got := make([]byte, len(data))
					_, err := io.ReadFull(c, got)
					if err == nil && !bytes.Equal(got, data) {
						err = errors.New("wrong bytes")
					}
					errs <- err
				}()
			}
			for range 4 {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			closeBoth(t, x, y)
		})
	}
}

// closeBoth closes x cleanly, checks that y sees it, and closes y.
func closeBoth(t *testing.T, x, y *Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- x.Close() }()
	if _, err := y.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read after the peer's Close = %v, want io.EOF", err)
	}
	if err := y.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// oneByteConn returns at most one byte per Read.
type oneByteConn struct {
	net.Conn
	r io.Reader
}

func (c oneByteConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestOneByteReads(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, oneByteConn{a, iotest.OneByteReader(a)}, oneByteConn{b, iotest.OneByteReader(b)}, Options{})
	go func() { _, _ = x.Write(bytes.Repeat([]byte("abc"), 3000)) }()
	got := make([]byte, 9000)
	if _, err := io.ReadFull(iotest.OneByteReader(y), got); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat([]byte("abc"), 3000); !bytes.Equal(got, want) {
		t.Error("wrong bytes")
	}
	closeBoth(t, x, y)
}

func TestCloseDeliversEverythingWrittenBefore(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Second})
	want := bytes.Repeat([]byte("0123456789abcdef"), 10_000) // below the 256 KiB that are accepted unsent
	if _, err := x.Write(want); err != nil {
		t.Fatal(err)
	}
	// Bytes that x never reads must not destroy what it has sent.
	if _, err := y.Write([]byte("never read")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- x.Close() }()
	got, err := io.ReadAll(y)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAll = %d bytes, %v; want %d, nil", len(got), err, len(want))
	}
	_ = y.Close()
	if err := <-done; err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestCloseWithReason(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	go func() { _ = x.CloseWithReason(code.Shutdown, "going\x1b[31m home "+strings.Repeat("é", 2000)) }()
	_, err := y.Read(make([]byte, 1))
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != code.Shutdown {
		t.Fatalf("Read = %v, want a CloseError with %v", err, code.Shutdown)
	}
	if !strings.HasPrefix(ce.Reason, "going?[31m home é") || len(ce.Reason) > code.MaxReason || strings.HasSuffix(ce.Reason, "?") {
		t.Errorf("reason = %q, want it cut at a rune and printable", ce.Reason)
	}
	_ = y.Close()
	_ = x.Close()
}

func TestUnauthenticatedEndIsNotEOF(t *testing.T) {
	ends := map[string]func(net.Conn){
		"fin":   func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
		"reset": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
			end(a)
			_, err := y.Read(make([]byte, 1))
			if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
				t.Errorf("Read = %v, want an error that is no end of data", err)
			}
			_, again := y.Read(make([]byte, 1))
			if again != err {
				t.Errorf("second Read = %v, want the same: %v", again, err)
			}
			_ = x.Close()
			_ = y.Close()
		})
	}
}

func TestDetach(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	if _, err := x.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	rx, leftover, err := x.Detach()
	if err != nil || len(leftover) != 0 {
		t.Fatalf("Detach = %q, %v", leftover, err)
	}
	if _, err := rx.Write([]byte("raw bytes")); err != nil {
		t.Fatal(err)
	}
	_ = rx.(*net.TCPConn).CloseWrite()
	got := make([]byte, 4)
	if _, err := io.ReadFull(y, got); err != nil || string(got) != "last" {
		t.Fatalf("Read = %q, %v", got, err)
	}
	ry, leftover, err := y.Detach()
	if err != nil {
		t.Fatalf("Detach: %v", err)
	}
	rest, err := io.ReadAll(io.MultiReader(bytes.NewReader(leftover), ry))
	if err != nil || string(rest) != "raw bytes" {
		t.Errorf("raw bytes after Detach = %q, %v", rest, err)
	}
	for _, c := range []*Conn{x, y} {
		if _, err := c.Read(got); !errors.Is(err, ErrDetached) {
			t.Errorf("Read after Detach = %v, want ErrDetached", err)
		}
		if _, err := c.Write(got); !errors.Is(err, ErrDetached) {
			t.Errorf("Write after Detach = %v, want ErrDetached", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close after Detach = %v", err)
		}
	}
	if _, err := ry.Write([]byte("still open")); err != nil {
		t.Errorf("Close after Detach closed the path: %v", err)
	}
	_ = rx.Close()
	_ = ry.Close()
}

func TestDetachRefusesUnreadData(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
	if _, err := x.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := y.Detach(); err == nil || !strings.Contains(err.Error(), "2 bytes are unread") {
		t.Errorf("Detach = %v, want an error about 2 unread bytes", err)
	}
	_ = x.Close()
}

func TestWriteBlocksAt256KiB(t *testing.T) {
	synctest.Test(t, testWriteBlocksAt256KiB)
}

func testWriteBlocksAt256KiB(t *testing.T) {
	a, b := net.Pipe()
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
	if err := x.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := x.Write(make([]byte, 4<<20))
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("Write = %d, %v; want a time-out", n, err)
	}
	if n < 100<<10 || n > 256<<10 {
		t.Errorf("Write accepted %d bytes that nobody reads, want at most 256 KiB", n)
	}
	// What was accepted arrives all the same, and the Conn goes on.
	if err := x.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, y, int64(n)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = x.Write([]byte("more")) }()
	got := make([]byte, 4)
	if _, err := io.ReadFull(y, got); err != nil || string(got) != "more" {
		t.Errorf("after the time-out: %q, %v", got, err)
	}
	_ = x.Close()
	_ = y.Close()
}

func TestDeadlineFreesTheInlineWriter(t *testing.T) {
	a, b := net.Pipe()
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
	wrote := make(chan error, 1)
	go func() {
		_, err := x.Write([]byte("hello")) // inline: net.Pipe blocks until y reads
		wrote <- err
	}()
	for {
		x.w.mu.Lock()
		inline := x.w.inline
		x.w.mu.Unlock()
		if inline {
			break
		}
	}
	if err := x.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("Write = %v, want nil: its bytes were accepted", err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(y, got); err != nil || string(got) != "hello" {
		t.Errorf("Read = %q, %v", got, err)
	}
	_ = x.Close()
	_ = y.Close()
}

func TestIdleConnHoldsNoBuffer(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	if _, err := x.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(y, got); err != nil {
		t.Fatal(err)
	}
	y.readMu.Lock()
	if y.buf != nil {
		t.Error("the read side holds a buffer after all was read")
	}
	y.readMu.Unlock()
	x.w.mu.Lock()
	for x.w.busy {
		x.w.changed.Wait()
	}
	if x.w.pend != nil || x.w.restBuf != nil {
		t.Error("the write side holds a buffer after all was sent")
	}
	x.w.mu.Unlock()
	closeBoth(t, x, y)
}
