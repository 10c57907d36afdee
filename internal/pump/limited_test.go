package pump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// startLimited copies between two sockets, the second of which is limited.
func startLimited(t testing.TB, in, out *Rate) (*copying, *Limited) {
	t.Helper()
	a, left := pair(t)
	b, right := pair(t)
	l := NewLimited(b, in, out)
	c := &copying{left: left, right: right}
	c.run(t, func(ctx context.Context) Result { return Both(ctx, a, l) })
	return c, l
}

// Each direction has its own rate, and is kept to it.
func TestLimitedRate(t *testing.T) {
	const rate, size = 4 << 20, 1 << 20
	for _, tt := range []struct {
		name    string
		in, out int64
	}{{"read", rate, 0}, {"written", 0, rate}} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := startLimited(t, NewRate(tt.in), NewRate(tt.out))
			from, to := c.left, c.right
			if tt.in > 0 {
				from, to = to, from
			}
			soon(from)
			soon(to)
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			start := time.Now()
			go func() {
				_, _ = from.Write(data)
				_ = from.CloseWrite()
			}()
			got, err := io.ReadAll(to)
			took := time.Since(start)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("got %d bytes, %v, want %d", len(got), err, size)
			}
			if low := size * time.Second / rate * 9 / 10; took < low {
				t.Errorf("%d bytes took %v at %d a second", size, took, rate)
			}
			_ = to.CloseWrite()
			if r := c.wait(t); r.Err != nil {
				t.Errorf("the copy ended with %v", r.Err)
			}
		})
	}
}

// A pause does not outlast the copy: not a context's end, and not a close by somebody
// else.
func TestLimitedPauseEnds(t *testing.T) {
	for name, end := range map[string]func(c *copying, l *Limited){
		"context": func(c *copying, _ *Limited) { c.cancel(context.Canceled) },
		"closed":  func(_ *copying, l *Limited) { _ = sock.ResetClose(l) },
	} {
		t.Run(name, func(t *testing.T) {
			c, l := startLimited(t, NewRate(1), NewRate(1)) // the first chunk is owed for minutes
			soon(c.left)
			soon(c.right)
			for _, ends := range [][2]net.Conn{{c.left, c.right}, {c.right, c.left}} {
				if _, err := ends[0].Write(make([]byte, 2*leastChunk)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(ends[1], make([]byte, leastChunk)); err != nil {
					t.Fatal(err)
				}
			}
			end(c, l)
			if r := c.wait(t); r.Err == nil {
				t.Error("the copy has ended well")
			}
			if _, err := c.right.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the limited side's peer: %v, want a reset", err)
			}
		})
	}
}

// Whether bytes move is told: not while nothing does, but while one direction waits for
// its rate, and when the peer takes what a write has left in the kernel.
func TestLimitedMoved(t *testing.T) {
	still := func(t *testing.T, l *Limited) {
		t.Helper()
		before := l.Moved()
		for end := time.Now().Add(patience); ; before = l.Moved() {
			time.Sleep(5 * time.Millisecond)
			if l.Moved() == before {
				return
			}
			if time.Now().After(end) {
				t.Fatal("it moves for ever")
			}
		}
	}
	t.Run("pause", func(t *testing.T) {
		out := NewRate(1) // a chunk is paid for after minutes
		c, l := startLimited(t, NewRate(0), out)
		soon(c.left)
		soon(c.right)
		still(t, l)
		if _, err := c.left.Write(make([]byte, 2*leastChunk)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.right, make([]byte, leastChunk)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); l.pausing.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the second chunk does not wait for its rate")
			}
		}
		if last := l.Moved(); last == l.Moved() {
			t.Fatal("one that waits for its rate does not move")
		}
		out.Set(0)
		if _, err := io.ReadFull(c.right, make([]byte, leastChunk)); err != nil {
			t.Fatal(err)
		}
		still(t, l)
	})
	t.Run("kernel", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("the system does not tell what is acknowledged")
		}
		c, l := startLimited(t, NewRate(0), NewRate(0))
		fill(t, c.left)
		soon(c.right)
		still(t, l)
		before := l.Moved()
		for end := time.Now().Add(patience); l.Moved() == before; {
			if time.Now().After(end) {
				t.Fatal("the peer reads, and nothing moves")
			}
			if _, err := io.ReadFull(c.right, make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Who has nothing to read waits for no rate, whatever is to be paid for.
func TestLimitedPausesForBytes(t *testing.T) {
	c, l := startLimited(t, NewRate(1), NewRate(0))
	soon(c.left)
	soon(c.right)
	send := func() {
		if _, err := c.right.Write(make([]byte, leastChunk)); err != nil {
			t.Fatal(err)
		}
	}
	send()
	if _, err := io.ReadFull(c.left, make([]byte, leastChunk)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if l.pausing.Load() != 0 {
			t.Fatal("it waits for its rate, and there is nothing to read")
		}
		time.Sleep(time.Millisecond)
	}
	send()
	for end := time.Now().Add(patience); l.pausing.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("there is something to read, which does not wait for its rate")
		}
	}
	_ = c.right.CloseWrite() // which waits as what is before it
	if l.pausing.Load() == 0 {
		t.Error("an end has ended the pause")
	}
}

// An end is passed on at once, whatever is to be paid for.
func TestLimitedEndIsNotPaidFor(t *testing.T) {
	c, _ := startLimited(t, NewRate(1), NewRate(1))
	soon(c.left)
	soon(c.right)
	for _, ends := range [][2]*net.TCPConn{{c.left, c.right}, {c.right, c.left}} {
		if _, err := ends[0].Write(make([]byte, leastChunk)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ends[1], make([]byte, leastChunk)); err != nil {
			t.Fatal(err)
		}
		_ = ends[0].CloseWrite()
	}
	if _, err := c.right.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the limited side's peer: %v, want an end", err)
	}
}

// Limited is what it limits in all else.
func TestLimitedIsItsConn(t *testing.T) {
	near, far := pair(t)
	soon(near)
	l := NewLimited(near, NewRate(0), NewRate(0))
	if !isSocket(l) {
		t.Error("it is no socket")
	}
	_ = l.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	_ = l.SetDeadline(time.Time{})
	_ = l.SetLinger(0)
	_ = far.CloseWrite()
	if _, err := l.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	_ = l.Close()
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("linger is not the conn's: the peer read %v", err)
	}
	near, far = pair(t)
	l = NewLimited(near, NewRate(0), NewRate(0))
	_ = sock.ResetClose(far)
	var err error
	for err == nil {
		_, err = l.Write([]byte("is anybody there?"))
	}
	if err := sock.EndOrReset(l); err == nil {
		t.Error("a reset that a write was told of is an end")
	}
	var _ net.Conn = l
}
