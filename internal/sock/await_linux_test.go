package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// conns are the two kinds of socket, each with its near end's Reader and Writer.
func conns(t *testing.T, test func(t *testing.T, near, far Conn, r *Reader, moved func() uint64)) {
	t.Run("tcp", func(t *testing.T) {
		near, far := pair(t)
		w := NewWriter(near)
		test(t, writing{near, w}, far, NewReader(near), w.Moved)
	})
	t.Run("unix", func(t *testing.T) {
		a, b := unixPair(t)
		near := NewUnix(a)
		test(t, near, NewUnix(b), NewReader(near), near.Moved)
	})
}

// A writing conn is written by a Writer.
type writing struct {
	*net.TCPConn
	w *Writer
}

func (c writing) Write(b []byte) (int, error) { return c.w.Write(b) }

// Await returns when there is something to be read, takes nothing, and says what a read
// would, again and again: whatever was read before.
func TestAwait(t *testing.T) {
	conns(t, func(t *testing.T, near, far Conn, r *Reader, _ func() uint64) {
		b := make([]byte, 1)
		for i := range byte(5) {
			_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if err := r.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("byte %d: with nothing there: %v, want the deadline", i, err)
			}
			_ = near.SetReadDeadline(time.Now().Add(20 * time.Second))
			awaited := make(chan error, 1)
			go func() { awaited <- r.Await() }()
			if _, err := far.Write([]byte{i}); err != nil {
				t.Fatal(err)
			}
			if err := <-awaited; err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			if err := r.Await(); err != nil {
				t.Fatalf("byte %d, again: %v", i, err)
			}
			if n, err := r.Read(b); n != 1 || err != nil || b[0] != i {
				t.Fatalf("byte %d: read %d bytes, %v, %v", i, n, b, err)
			}
		}
		awaited := make(chan error, 1)
		go func() { awaited <- r.Await() }()
		_ = far.CloseWrite()
		if err := <-awaited; err != nil && err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		if _, err := r.Read(b); err != io.EOF {
			t.Errorf("after it: %v, want the end", err)
		}
	})
}

// A reset ends Await, and is not lost by it.
func TestAwaitReset(t *testing.T) {
	near, far := pair(t)
	r := NewReader(near)
	_ = near.SetReadDeadline(time.Now().Add(20 * time.Second))
	_ = ResetClose(far)
	err := r.Await()
	var oe *net.OpError
	if !errors.As(err, &oe) || oe.Op != "read" || oe.Addr.String() != near.RemoteAddr().String() {
		t.Errorf("got %v, want a read's error of this conn", err)
	}
}

// What a peer takes bit by bit moves, though a Write waits for a third of the buffer;
// and what it does not take does not.
func TestWriterMoved(t *testing.T) {
	conns(t, func(t *testing.T, near, far Conn, _ *Reader, moved func() uint64) {
		before := moved()
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); moved() == before; time.Sleep(time.Millisecond) { // until it is acknowledged
			if time.Now().After(end) {
				t.Fatal("a byte was written, and nothing has moved")
			}
		}
		wrote := make(chan error, 1)
		go func() {
			for {
				if _, err := near.Write(make([]byte, 64<<10)); err != nil {
					wrote <- err
					return
				}
			}
		}()
		still := func() (number uint64) {
			t.Helper()
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
				number = moved()
				time.Sleep(50 * time.Millisecond)
				if moved() == number {
					return number
				}
			}
			t.Fatal("it moves, and the peer takes nothing")
			return 0
		}
		before = still()
		buf := make([]byte, 4<<10)
		_ = far.SetReadDeadline(time.Now().Add(20 * time.Second))
		for end := time.Now().Add(20 * time.Second); moved() == before; {
			if _, err := io.ReadFull(far, buf); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatal("the peer takes bytes, and nothing moves")
			}
		}
		_ = near.Close()
		<-wrote
		_ = moved() // of a conn that is closed
	})
}

// A conn that is no socket tells what it has taken.
func TestWriterMovedOfAPipe(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	w := NewWriter(a)
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if n := w.Moved(); n != 3 {
		t.Errorf("got %d, want the 3 bytes", n)
	}
	if err := NewReader(a).Await(); err != nil {
		t.Errorf("a conn that cannot tell: %v", err)
	}
}
