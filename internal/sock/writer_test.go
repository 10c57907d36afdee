package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestWriter writes short and long pieces, to a socket and to a pipe.
func TestWriter(t *testing.T) {
	pipe := func(*testing.T) (net.Conn, net.Conn) { return net.Pipe() }
	for name, conns := range map[string]func(*testing.T) (net.Conn, net.Conn){
		"tcp": func(t *testing.T) (net.Conn, net.Conn) { a, b := pair(t); return a, b }, "pipe": pipe,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := conns(t)
			defer a.Close()
			defer b.Close()
			var want bytes.Buffer
			for i, n := range []int{1, 64, 0, 1500, 16 << 10, 16<<10 + 1, 300_000, 7} {
				want.Write(bytes.Repeat([]byte{byte('a' + i)}, n))
			}
			var got []byte
			var reading sync.WaitGroup
			reading.Go(func() {
				got = make([]byte, want.Len())
				if _, err := io.ReadFull(b, got); err != nil {
					t.Error(err)
				}
			})
			w, rest := NewWriter(a), want.Bytes()
			for _, n := range []int{1, 64, 0, 1500, 16 << 10, 16<<10 + 1, 300_000, 7} {
				if k, err := w.Write(rest[:n]); k != n || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", n, k, err)
				}
				rest = rest[n:]
			}
			reading.Wait()
			if !bytes.Equal(got, want.Bytes()) {
				t.Error("other bytes than written")
			}
		})
	}
}

// TestWriterErrors: a short write fails as the conn's own does, with what it has
// written, at a deadline, at a reset and after a close.
func TestWriterErrors(t *testing.T) {
	fill := func(w io.Writer) (total int, err error) {
		for err == nil {
			var n int
			n, err = w.Write(make([]byte, 16<<10))
			total += n
		}
		return total, err
	}
	check := func(t *testing.T, a net.Conn, err, want error) {
		t.Helper()
		var oe *net.OpError
		if !errors.Is(err, want) || !errors.As(err, &oe) || oe.Op != "write" || oe.Addr != a.RemoteAddr() && oe.Addr.String() != a.RemoteAddr().String() {
			t.Errorf("error %#v, want a write's with %v", err, want)
		}
	}
	t.Run("deadline", func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		_ = a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		total, err := fill(NewWriter(a))
		check(t, a, err, os.ErrDeadlineExceeded)
		_ = a.Close()
		if got, err := io.Copy(io.Discard, b); int(got) != total || err != nil {
			t.Errorf("%d bytes have arrived, %v; %d were reported", got, err, total)
		}
	})
	t.Run("moved deadline", func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		_ = a.SetWriteDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(50*time.Millisecond, func() { _ = a.SetWriteDeadline(time.Unix(1, 0)) })
		_, err := fill(NewWriter(a))
		check(t, a, err, os.ErrDeadlineExceeded)
	})
	t.Run("reset", func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		_ = ResetClose(b)
		_, err := fill(NewWriter(a))
		if !errors.Is(err, syscall.EPIPE) {
			check(t, a, err, syscall.ECONNRESET)
		}
	})
	t.Run("closed while it waits", func(t *testing.T) {
		a, b := pair(t)
		defer b.Close()
		time.AfterFunc(50*time.Millisecond, func() { a.Close() })
		_, err := fill(NewWriter(a))
		check(t, a, err, net.ErrClosed)
	})
	t.Run("closed before", func(t *testing.T) {
		a, b := pair(t)
		defer b.Close()
		w := NewWriter(a)
		a.Close()
		_, err := w.Write([]byte("x"))
		check(t, a, err, net.ErrClosed)
	})
}

func TestAllocWriter(t *testing.T) {
	a, b := pair(t)
	defer a.Close()
	defer b.Close()
	var reading sync.WaitGroup
	reading.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{b}, make([]byte, 1<<10))
	})
	w, p := NewWriter(a), make([]byte, 64)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a write, want 0", n)
	}
	a.Close()
	reading.Wait()
}
