package sock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// unixPair returns the two ends of a unix socket's connection.
func unixPair(t testing.TB) (near, far *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	_ = conns[1].SetDeadline(time.Now().Add(20 * time.Second))
	return conns[0], conns[1]
}

// readAll returns what a conn reads and how that ends; nil is a clean end.
func readAll(c net.Conn) (string, error) {
	b, err := io.ReadAll(c)
	return string(b), err
}

// How a peer reads the end of a connection is how this side has ended it, after all
// that it was sent.
func TestUnixAbortIsNoEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent []string // by the peer, each read before the next
		end  func(u *Unix)
		want error
	}{
		{"closed", []string{"x"}, func(u *Unix) { u.Close() }, syscall.ECONNRESET},
		{"closed after more", []string{"select 1", "select 2", "!"}, func(u *Unix) { u.Close() }, syscall.ECONNRESET},
		{"reset", []string{"select 1"}, func(u *Unix) { _ = ResetClose(u) }, syscall.ECONNRESET},
		{"SetLinger(0)", []string{"select 1"}, func(u *Unix) { _ = u.SetLinger(0); u.Close() }, syscall.ECONNRESET},
		{"clean", []string{"select 1"}, func(u *Unix) { _ = u.SetLinger(-1); u.Close() }, nil},
		{"clean after one byte", []string{"x"}, func(u *Unix) { _ = u.SetLinger(-1); u.Close() }, nil},
		{"clean, nothing sent", nil, func(u *Unix) { _ = u.SetLinger(-1); u.Close() }, nil},
		// What cannot be told: docs/security.md says so, and this would show if it could.
		{"closed, nothing sent", nil, func(u *Unix) { u.Close() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, peer := unixPair(t)
			u := NewUnix(c)
			for _, text := range tt.sent {
				if _, err := peer.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(text))
				if _, err := io.ReadFull(u, got); err != nil || string(got) != text {
					t.Fatalf("read %q, %v; want %q", got, err, text)
				}
			}
			if _, err := u.Write([]byte("the answer")); err != nil {
				t.Fatal(err)
			}
			tt.end(u)
			if got, err := readAll(peer); got != "the answer" || !errors.Is(err, tt.want) {
				t.Errorf("the peer read %q, %v; want the answer and %v", got, err, tt.want)
			}
		})
	}
}

// A peer's end is an end, whether it goes on reading or has closed its socket, and
// though the last byte is kept.
func TestUnixEnd(t *testing.T) {
	for name, end := range map[string]func(*net.UnixConn) error{"half closed": (*net.UnixConn).CloseWrite, "closed": (*net.UnixConn).Close} {
		t.Run(name, func(t *testing.T) {
			c, peer := unixPair(t)
			u := NewUnix(c)
			if _, err := peer.Write([]byte("all of it")); err != nil {
				t.Fatal(err)
			}
			if err := end(peer); err != nil {
				t.Fatal(err)
			}
			if got, err := readAll(u); got != "all of it" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			if n, err := u.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the next read: %d, %v; want io.EOF again", n, err)
			}
			if err := EndOrReset(u); err != nil {
				t.Errorf("EndOrReset: %v", err)
			}
		})
	}
}

// A peer that goes without reading what it was sent is a reset, also for a read
// beside a write that was told first.
func TestUnixReset(t *testing.T) {
	c, peer := unixPair(t)
	u := NewUnix(c)
	if _, err := u.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if _, err := u.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}

	c, _ = unixPair(t)
	u = NewUnix(c)
	u.keeper.reset = true // as send leaves it, in the moment between two system calls
	_ = u.UnixConn.CloseRead()
	var oe *net.OpError
	if _, err := u.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &oe) || oe.Op != "read" {
		t.Errorf("a read beside a write that was told of the reset: %v, want a read's ECONNRESET", err)
	}
}

// Descriptors that a peer passes end a system call's read early. They are dropped,
// the bytes are not.
func TestUnixPassedDescriptors(t *testing.T) {
	c, peer := unixPair(t)
	u := NewUnix(c)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, text := range []string{"first ", "second ", "third"} {
		if _, _, err := peer.WriteMsgUnix([]byte(text), syscall.UnixRights(int(null.Fd())), nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = peer.CloseWrite()
	if got, err := readAll(u); got != "first second third" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// Whatever the sizes of writes and reads, every byte arrives once and in order, and
// an abort is one.
func TestUnixExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		writes := rapid.SliceOfN(rapid.IntRange(1, 40<<10), 1, 12).Draw(rt, "writes")
		reads := rapid.SliceOfN(rapid.IntRange(1, 70<<10), 1, 6).Draw(rt, "reads")
		c, peer := unixPair(t)
		defer c.Close()
		defer peer.Close()
		u := NewUnix(c)
		var want []byte
		for i, n := range writes {
			want = append(want, bytes.Repeat([]byte{byte(i)}, n)...)
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			rest := want
			for _, n := range writes {
				if _, err := peer.Write(rest[:n]); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
		})
		var got []byte
		for i := 0; len(got) < len(want); i++ {
			b := make([]byte, reads[i%len(reads)])
			n, err := u.Read(b)
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, b[:n]...)
		}
		writing.Wait()
		if !bytes.Equal(got, want) {
			rt.Fatalf("other bytes: %d, want %d", len(got), len(want))
		}
		u.Close()
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			rt.Fatalf("the peer read %v, want a reset", err)
		}
	})
}

// Deadlines and a close end a read that waits while a byte is kept, and bytes that
// come wake it.
func TestUnixReadWaits(t *testing.T) {
	c, peer := unixPair(t)
	u := NewUnix(c)
	b := make([]byte, 16)
	for range 50 {
		text := bytes.Repeat([]byte("x"), 1+rand.IntN(5))
		time.AfterFunc(time.Millisecond, func() { _, _ = peer.Write(text) })
		if n, err := io.ReadFull(u, b[:len(text)]); n != len(text) || err != nil {
			t.Fatalf("read %d, %v", n, err)
		}
	}
	_ = u.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := u.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	_ = u.SetReadDeadline(time.Time{})
	time.AfterFunc(time.Millisecond, func() { u.Close() })
	if _, err := u.Read(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it waits: %v", err)
	}
}

func TestAllocsOfUnix(t *testing.T) {
	c, peer := unixPair(t)
	u := NewUnix(c)
	one := make([]byte, 4096)
	get, put := func() []byte { return one }, func([]byte) {}
	msg := make([]byte, 100)
	if got := testing.AllocsPerRun(200, func() {
		if _, err := peer.Write(msg); err != nil {
			t.Error(err)
		}
		if _, _, err := u.ReadReady(get, put); err != nil {
			t.Error(err)
		}
		if _, err := u.Write(msg); err != nil {
			t.Error(err)
		}
		if _, err := peer.Read(one); err != nil {
			t.Error(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations a read and a write, want 0", got)
	}
}

func TestOf(t *testing.T) {
	tcp, _ := pair(t)
	if c, err := Of(tcp); c != Conn(tcp) || err != nil {
		t.Errorf("of a TCP socket: %v, %v", c, err)
	}
	c, _ := unixPair(t)
	if got, err := Of(c); err != nil {
		t.Errorf("of a unix socket: %v", err)
	} else if _, ok := got.(*Unix); !ok {
		t.Errorf("of a unix socket: %T", got)
	}
	a, b := net.Pipe()
	defer b.Close()
	if _, err := Of(a); err == nil {
		t.Error("of a pipe: no error")
	}
}
