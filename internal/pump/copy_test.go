package pump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// One side ends its direction; the other still answers; then it ends too.
func TestHalfClose(t *testing.T) {
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, side Side) {
		soon(near)
		soon(far)
		if _, err := near.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		_ = near.CloseWrite()
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "question" {
			t.Fatalf("far side got %q, %v; want the question and an end", got, err)
		}
		if _, err := far.Write([]byte("the answer")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, err := io.ReadFull(near, buf); err != nil || string(buf) != "the answer" {
			t.Fatalf("near side got %q, %v after its own end", buf, err)
		}
		select {
		case r := <-c.result:
			t.Fatalf("the copy ended with one direction open: %+v", r)
		default:
		}
		_ = far.CloseWrite()
		if n, err := near.Read(buf); err != io.EOF {
			t.Fatalf("near side's read after far's end: %d, %v; want io.EOF", n, err)
		}
		want := Result{AToB: 8, BToA: 10}
		if side == B {
			want = Result{AToB: 10, BToA: 8}
		}
		if r := c.wait(t); r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	})
}

// A reset of one side reaches the other as a reset, at once.
func TestReset(t *testing.T) {
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, side Side) {
		soon(far)
		exchange(t, near, far)
		_ = sock.ResetClose(near)
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("far side's read: got %v, want ECONNRESET", err)
		}
		var e *Error
		r := c.wait(t)
		if !errors.As(r.Err, &e) || e.Side != side || e.Op != Read || !errors.Is(r.Err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a failure of reading side %s with ECONNRESET", r.Err, side)
		}
	})
}

// A side that goes away while the other sends fails the write, and the sender
// sees a reset.
func TestWriteFails(t *testing.T) {
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, side Side) {
		soon(near)
		exchange(t, near, far)
		// Far has ended its direction, so only writing can show that it is gone.
		_ = far.CloseWrite()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("near side's read: %v, want io.EOF", err)
		}
		_ = far.Close()
		var err error
		for err == nil {
			_, err = near.Write([]byte("is anybody there?"))
		}
		var e *Error
		r := c.wait(t)
		other := A + B - side
		if !errors.As(r.Err, &e) || e.Side != other || e.Op != Write {
			t.Errorf("got %v, want a failure of writing side %s", r.Err, other)
		}
	})
}

// ctx's end aborts both sides and is the result.
func TestContext(t *testing.T) {
	cause := errors.New("the operator said so")
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, _ Side) {
		soon(near)
		soon(far)
		exchange(t, near, far)
		c.cancel(cause)
		for _, conn := range []net.Conn{near, far} {
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a peer's read: got %v, want ECONNRESET", err)
			}
		}
		if r := c.wait(t); r.Err != cause {
			t.Errorf("got %v, want the context's cause", r.Err)
		}
	})
}

// Neither a reset nor ctx's end waits for a peer that does not read.
func TestStalled(t *testing.T) {
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, _ Side) {
		fill(t, near)
		_ = sock.ResetClose(far)
		r := c.wait(t)
		if r.Err == nil {
			t.Error("got no error")
		}
	})
	for _, way := range copies {
		t.Run(way.name+"/ctx", func(t *testing.T) {
			c := way.start(t)
			fill(t, c.left)
			fill(t, c.right)
			c.cancel(context.Canceled)
			if r := c.wait(t); !errors.Is(r.Err, context.Canceled) {
				t.Errorf("got %v, want %v", r.Err, context.Canceled)
			}
		})
	}
}

// Every byte arrives, in order, whatever the sizes of writes and reads, in both
// directions at once, with readers that pause.
func TestExact(t *testing.T) {
	const size = 3 << 20
	sides(t, func(t *testing.T, c *copying, near, far *net.TCPConn, _ Side) {
		soon(near)
		soon(far)
		var wg sync.WaitGroup
		for i, ends := range [][2]*net.TCPConn{{near, far}, {far, near}} {
			seed := uint64(i + 1)
			data := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
			wg.Go(func() { writeRandomly(t, ends[0], data, rand.New(rand.NewPCG(seed, 1))) })
			wg.Go(func() {
				got := readThrottled(t, ends[1], rand.New(rand.NewPCG(seed, 2)))
				if sha256.Sum256(got) != sha256.Sum256(data) {
					t.Errorf("%d bytes differ from the %d sent, first at %d", len(got), len(data), firstDiff(got, data))
				}
			})
		}
		wg.Wait()
		if r := c.wait(t); r != (Result{AToB: size, BToA: size}) {
			t.Errorf("got %+v, want %d each way", r, size)
		}
	})
}

func writeRandomly(t *testing.T, c *net.TCPConn, data []byte, rnd *rand.Rand) {
	for len(data) > 0 {
		n := min(len(data), 1+rnd.IntN(1<<(1+rnd.IntN(17))))
		if _, err := c.Write(data[:n]); err != nil {
			t.Errorf("writing: %v", err)
			return
		}
		data = data[n:]
	}
	_ = c.CloseWrite()
}

func readThrottled(t *testing.T, c net.Conn, rnd *rand.Rand) []byte {
	var all bytes.Buffer
	for {
		buf := make([]byte, 1+rnd.IntN(1<<(1+rnd.IntN(17))))
		n, err := c.Read(buf)
		all.Write(buf[:n])
		if err == io.EOF {
			return all.Bytes()
		}
		if err != nil {
			t.Errorf("reading: %v", err)
			return all.Bytes()
		}
		if rnd.IntN(50) == 0 {
			time.Sleep(time.Millisecond) // what a throttled reader is
		}
	}
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// exchange sends a byte each way, so that the copy is known to run.
func exchange(t testing.TB, near, far io.ReadWriter) {
	t.Helper()
	for _, ends := range [][2]io.ReadWriter{{near, far}, {far, near}} {
		if _, err := ends[0].Write([]byte{7}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ends[1], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// fill writes until nothing more goes, which it has tried twice: a time may be over before
// the first byte was offered, where the process was kept from running.
func fill(t testing.TB, c net.Conn) {
	t.Helper()
	b := make([]byte, 1<<20)
	for idle, total := 0, 0; idle < 2; {
		_ = c.SetWriteDeadline(time.Now().Add(75 * time.Millisecond))
		n, err := c.Write(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if idle++; n > 0 {
			idle = 0
		}
		if total += n; total > 64<<20 {
			t.Fatal("64 MiB went to a peer that does not read")
		}
	}
}
