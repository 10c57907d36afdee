package line

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served returns both ends of a TCP conn that a line of that kind carries.
func served(t testing.TB, c Config) (near, far net.Conn) {
	t.Helper()
	l := New(c)
	target, ln := listen(t), listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = l.Serve(t.Context(), ln, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", target.Addr().String())
		})
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = target.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// TestRate carries bytes at several rates, on one conn and on three at once,
// and measures at the far end.
func TestRate(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rate  int64
		conns int
	}{
		{"8 Mbit/s", 8e6, 1},
		{"200 Mbit/s", 200e6, 1},
		{"200 Mbit/s, three conns", 200e6, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, want := measure(tc.rate, tc.conns), float64(tc.rate)
				if got < want*0.98 || got > want*1.02 {
					t.Errorf("%.2f Mbit/s, want %.2f", got/1e6, want/1e6)
				}
			})
		})
	}
}

// piped returns both ends of a pipe that a line carries in a bubble of synctest, where
// time passes as the line has it. The caller closes one of them.
func piped(l *Line, joined *sync.WaitGroup) (near, far net.Conn) {
	near, in := net.Pipe()
	out, far := net.Pipe()
	joined.Go(func() { l.Join(in, out) })
	return near, far
}

// measure carries half a second's worth on each conn and returns the rate of
// all together.
func measure(rate int64, conns int) float64 {
	l := New(Config{Rate: rate, Delay: 5 * time.Millisecond, Buffer: int(rate / 8 / 20)})
	var all, joined sync.WaitGroup
	var counted counter
	for range conns {
		near, far := piped(l, &joined)
		all.Go(func() { _, _ = io.CopyN(near, zeros{}, rate/16) })
		all.Go(func() { _, _ = io.CopyN(&counted, far, rate/16); far.Close() })
	}
	all.Wait()
	l.Close()
	joined.Wait()
	return counted.rate()
}

// A counter measures the rate of what is written to it, from the end of the
// first piece on.
type counter struct {
	mu          sync.Mutex
	n           int
	first, last time.Time
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if c.first.IsZero() {
		c.first = c.last
		return len(p), nil
	}
	c.n += len(p)
	return len(p), nil
}

func (c *counter) rate() float64 { return float64(c.n) * 8 / c.last.Sub(c.first).Seconds() }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestDelay sends single bytes to and fro.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay, rounds = 10 * time.Millisecond, 20
		l := New(Config{Rate: 200e6, Delay: delay, Buffer: 1 << 20})
		var joined sync.WaitGroup
		near, far := piped(l, &joined)
		joined.Go(func() { _, _ = io.Copy(far, far) })
		b := make([]byte, 1)
		for range rounds {
			start := time.Now()
			_, _ = near.Write(b)
			if _, err := io.ReadFull(near, b); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < 2*delay || took > 2*delay+time.Millisecond {
				t.Errorf("a round trip takes %s, want %s", took, 2*delay)
			}
		}
		near.Close()
		l.Close()
		joined.Wait()
	})
}

// TestLane books pieces on a lane and looks at the times alone.
func TestLane(t *testing.T) {
	const ms = time.Millisecond
	var a lane
	a.set(Config{Rate: 8e6, Delay: 10 * ms, Buffer: 10_000}) // a byte takes a microsecond
	base := time.Unix(1000, 0)
	for i, b := range []struct {
		n, at       int // at: microseconds
		wantIn, out time.Duration
	}{
		{1000, 0, 0, 11 * ms},
		{1000, 500, 500 * time.Microsecond, 12 * ms}, // behind the first
		{1000, 5000, 5 * ms, 16 * ms},                // the lane has been idle
		{9000, 5000, 5 * ms, 25 * ms},                // just fits
		{1000, 5000, 6 * ms, 26 * ms},                // waits for room
		{500, 5500, 6*ms + 500*time.Microsecond, 26*ms + 500*time.Microsecond},
		{20_000, 6000, 16*ms + 500*time.Microsecond, 46*ms + 500*time.Microsecond}, // more than there is room for, ever
	} {
		in, out := a.enter(b.n, base.Add(time.Duration(b.at)*time.Microsecond))
		if in.Sub(base) != b.wantIn || out.Sub(base) != b.out {
			t.Errorf("piece %d: in at %s and out at %s, want %s and %s", i, in.Sub(base), out.Sub(base), b.wantIn, b.out)
		}
	}
}

// TestBuffer writes to a line that hardly moves: no more goes in than it has
// room for, and a piece.
func TestBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const buffer = 64 << 10
		l := New(Config{Rate: 1e6, Delay: time.Second, Buffer: buffer})
		near, in := net.Pipe()
		out, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Join(in, out)
		}()
		var taken atomic.Int64
		go func() {
			for {
				n, err := near.Write(make([]byte, minPiece))
				taken.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := taken.Load(); n < buffer-minPiece || n > buffer+minPiece {
			t.Errorf("%d bytes went in at once, want %d", n, buffer)
		}
		start := time.Now()
		if n, _ := far.Read(make([]byte, 1)); n != 1 || time.Since(start) != time.Second+12*time.Millisecond {
			t.Errorf("the first byte comes out after %s, want the delay and 12 ms for 1,500 bytes", time.Since(start))
		}
		l.end()
		<-done
		near.Close()
		far.Close()
	})
}

// TestEnds passes an end on behind the data, and leaves the other direction
// open; a reset is no end, from either side.
func TestEnds(t *testing.T) {
	cfg := Config{Rate: 200e6, Delay: 5 * time.Millisecond, Buffer: 1 << 20}
	t.Run("FIN", func(t *testing.T) {
		near, far := served(t, cfg)
		_, _ = near.Write([]byte("question"))
		_ = near.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(far); string(b) != "question" || err != nil {
			t.Errorf("read %q, %v, want the data and a clean end", b, err)
		}
		_, _ = far.Write([]byte("answer"))
		far.Close()
		if b, err := io.ReadAll(near); string(b) != "answer" || err != nil {
			t.Errorf("read %q, %v on the way back, want the data and a clean end", b, err)
		}
	})
	for _, side := range []string{"near", "far"} {
		t.Run("RST "+side, func(t *testing.T) {
			a, b := served(t, cfg)
			if side == "far" {
				a, b = b, a
			}
			_, _ = a.Write([]byte("x"))
			_, _ = b.Read(make([]byte, 1))
			start := time.Now()
			sock.ResetClose(a)
			if _, err := io.Copy(io.Discard, b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read ended with %v, want a reset", err)
			}
			if d := time.Since(start); d < cfg.Delay {
				t.Errorf("the reset is here after %s, before the delay of %s", d, cfg.Delay)
			}
		})
	}
}

// TestResetUnderWrites resets one end while the other writes: the writer is told,
// and nobody else of a clean end.
func TestResetUnderWrites(t *testing.T) {
	near, far := served(t, Config{Rate: 200e6, Delay: 5 * time.Millisecond, Buffer: 1 << 20})
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, zeros{})
		wrote <- err
	}()
	_, _ = io.CopyN(io.Discard, near, 1<<20)
	sock.ResetClose(near)
	if err := <-wrote; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the writer's end is %v, want a reset", err)
	}
}

// TestGoneAfterItsEnd: who sends learns that nobody reads any more, also from a reader
// that had said before that it has no more to send.
func TestGoneAfterItsEnd(t *testing.T) {
	near, far := served(t, Config{Rate: 100e6, Delay: time.Millisecond, Buffer: 100_000})
	if err := near.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("got %d bytes and %v", n, err)
	}
	near.Close()
	_ = far.SetWriteDeadline(time.Now().Add(30 * time.Second))
	for b := make([]byte, 64<<10); ; {
		if _, err := far.Write(b); errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
