package channel

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// gateConn holds up the first SetReadDeadline that gets closed asks for.
type gateConn struct {
	net.Conn
	armed  atomic.Bool
	inside chan struct{}
	open   chan struct{}
}

func newGate(c net.Conn) *gateConn {
	return &gateConn{Conn: c, inside: make(chan struct{}), open: make(chan struct{})}
}

func (c *gateConn) SetReadDeadline(t time.Time) error {
	if c.armed.CompareAndSwap(true, false) {
		close(c.inside)
		<-c.open
	}
	return c.Conn.SetReadDeadline(t)
}

// hold calls f while a SetReadDeadline(past) of c is under way, and returns
// when both have returned.
func (c *gateConn) hold(x *Conn, f func()) {
	var wg sync.WaitGroup
	c.armed.Store(true)
	wg.Go(func() { _ = x.SetReadDeadline(time.Unix(1, 0)) })
	<-c.inside
	wg.Go(f)
	time.Sleep(20 * time.Millisecond) // f may have to wait for the gate
	close(c.open)
	wg.Wait()
}

// The last of several SetReadDeadlines holds, for the path too.
func TestSetReadDeadlinesDoNotMix(t *testing.T) {
	a, b := tcpPair(t)
	gate := newGate(a)
	x, y := connPair(t, gate, b, Options{})
	gate.hold(x, func() { _ = x.SetReadDeadline(time.Time{}) })
	read := make(chan error, 1)
	go func() {
		_, err := x.Read(make([]byte, 1))
		read <- err
	}()
	if _, err := y.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-read:
		if err != nil {
			t.Errorf("Read = %v", err)
		}
		closeBoth(t, x, y)
	case <-time.After(20 * time.Second):
		t.Error("Read does not see what has come")
		_ = a.Close()
		<-read
		_ = x.Close()
		_ = y.Close()
	}
}

// What Detach has given away no SetReadDeadline of the Conn reaches.
func TestSetReadDeadlineDoesNotReachADetachedPath(t *testing.T) {
	a, b := tcpPair(t)
	gate := newGate(a)
	x, y := connPair(t, gate, b, Options{Linger: time.Millisecond})
	gate.hold(x, func() {
		if _, _, err := x.Detach(); err != nil {
			t.Errorf("Detach: %v", err)
		}
	})
	if _, err := b.Write([]byte("raw")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 3)); err != nil {
		t.Errorf("reading the detached path: %v", err)
	}
	_ = a.Close()
	_ = y.Close()
}

// A SetReadDeadline that comes at the same time does not take Close's wait for
// the peer's end away.
func TestSetReadDeadlineDoesNotCutCloseShort(t *testing.T) {
	a, b := tcpPair(t)
	gate := newGate(a)
	x, y := connPair(t, gate, b, Options{Linger: time.Minute})
	const pause = 100 * time.Millisecond
	start := time.Now()
	go func() {
		time.Sleep(pause)
		_ = y.Close()
	}()
	gate.hold(x, func() {
		if err := x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if d := time.Since(start); d < pause {
		t.Errorf("Close took %s: it did not wait for the peer's", d)
	}
}

func TestReadDuringCloseReturnsAtOnce(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{Linger: time.Hour})
	closed := make(chan struct{})
	go func() {
		_ = x.Close()
		close(closed)
	}()
	<-x.finished
	time.Sleep(50 * time.Millisecond) // Close waits for y by now
	start := time.Now()
	if _, err := x.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("Read took %s", d)
	}
	_ = y.Close()
	<-closed
}

func TestBothCloseAtOnce(t *testing.T) {
	paths := map[string]func(testing.TB) (net.Conn, net.Conn){
		"tcp":  tcpPair,
		"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			for i := range 20 {
				a, b := path(t)
				x, y := connPair(t, a, b, Options{Linger: time.Hour})
				start := time.Now()
				var wg sync.WaitGroup
				for _, c := range []*Conn{x, y} {
					wg.Go(func() {
						_ = c.SetWriteDeadline(start.Add(time.Hour)) // not inline, which waits for the path
						_, _ = c.Write(make([]byte, i*10_000))       // never read
						if err := c.Close(); err != nil {
							t.Errorf("Close: %v", err)
						}
					})
				}
				wg.Wait()
				if d := time.Since(start); d > 20*time.Second {
					t.Errorf("closing took %s", d)
				}
			}
		})
	}
}

// The peer has closed and gone, and a Write has found out: its CLOSE is still
// there, and it was a clean one.
func TestCloseAfterThePeerHasGone(t *testing.T) {
	a, b := tcpPair(t)
	mute := false
	x, y := connPair(t, muteConn{a, func() bool { return mute }}, b, Options{Linger: time.Minute})
	mute = true
	_, _ = x.Write([]byte("nobody reads this"))
	go func() {
		<-x.finished
		time.Sleep(10 * time.Millisecond) // Close has found the failed Write by now
		_ = y.CloseWithReason(code.OK, "")
	}()
	if err := x.Close(); err != nil {
		t.Errorf("Close = %v, want nil: the peer has closed too", err)
	}
	_ = y.Close()
}

func TestWriteAfterAFailedClose(t *testing.T) {
	a, b := net.Pipe()
	x, y := connPair(t, a, b, Options{Linger: 20 * time.Millisecond})
	_ = x.SetWriteDeadline(time.Now().Add(time.Hour))
	if _, err := x.Write([]byte("nobody reads this")); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err == nil {
		t.Error("Close = nil, want an error: nothing has left")
	}
	if _, err := x.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close = %v, want net.ErrClosed", err)
	}
	_ = y.Close()
}

func TestDetachWhileAWriteWaits(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{Linger: time.Minute})
	accepted := make(chan int, 1)
	go func() {
		n, err := x.Write(bytes.Repeat([]byte("x"), 64<<20))
		if !errors.Is(err, ErrDetached) {
			t.Errorf("Write = %v, want ErrDetached", err)
		}
		accepted <- n
	}()
	time.Sleep(20 * time.Millisecond) // the Write waits, or is about to
	detached := make(chan net.Conn, 1)
	go func() {
		nc, _, err := x.Detach()
		if err != nil {
			t.Errorf("Detach: %v", err)
		}
		detached <- nc
	}()
	<-x.finished
	read := make(chan int, 1)
	go func() {
		n, _ := io.Copy(io.Discard, y)
		read <- int(n)
	}()
	if nc := <-detached; nc != nil {
		_ = nc.Close()
	}
	if got, want := <-read, <-accepted; got != want {
		t.Errorf("%d bytes arrived, %d were accepted", got, want)
	}
	_ = y.Close()
}

func TestDetachOfADeadPath(t *testing.T) {
	a, b := net.Pipe()
	x, y := connPair(t, a, b, Options{Linger: time.Millisecond})
	x.dead.Store(true)
	if _, _, err := x.Detach(); !errors.Is(err, ErrDead) {
		t.Errorf("Detach = %v, want ErrDead", err)
	}
	_ = y.Close()
}

func TestFailedDetachHoldsNoBuffer(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{Linger: time.Millisecond})
	if _, err := x.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := y.Detach(); err == nil {
		t.Error("Detach = nil, want an error about unread bytes")
	}
	if y.buf != nil {
		t.Error("a buffer is held")
	}
	_ = x.Close()
}

// The bytes of one Write stay together, however many write and however little
// room there is.
func TestConcurrentWritesDoNotMix(t *testing.T) {
	a, b := net.Pipe()
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
	const writers, writes, size = 8, 40, 3001
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, size)
			for range writes {
				if _, err := x.Write(p); err != nil {
					t.Errorf("Write: %v", err)
				}
			}
		})
	}
	p := make([]byte, size)
	for range writers * writes {
		if _, err := io.ReadFull(y, p); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(p, p[:1]) != size {
			t.Error("bytes of another Write came between")
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, y) }()
	wg.Wait()
	_ = x.Close()
	_ = y.Close()
}

// Everything at once, on both ends: whatever is read is what was written, and
// everything ends.
func TestStorm(t *testing.T) {
	for seed := range uint64(6) {
		for _, pipe := range []bool{false, true} {
			a, b := net.Pipe()
			if !pipe {
				_, _ = a.Close(), b.Close()
				a, b = tcpPair(t)
			}
			x, y := connPair(t, a, b, Options{Linger: 20 * time.Millisecond})
			var wg sync.WaitGroup
			for side, c := range []*Conn{x, y} {
				storm(t, &wg, c, rand.New(rand.NewPCG(seed, uint64(side))), seed%3 == 2 && side == 0)
			}
			done := make(chan struct{})
			go func() {
				wg.Wait()
				close(done)
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				panic("a call does not return")
			}
			_, _ = a.Close(), b.Close()
		}
	}
}

// storm lets eight goroutines loose on c and then ends it. The stream is a
// count, byte by byte, so that what is lost, doubled or foreign shows.
func storm(t *testing.T, wg *sync.WaitGroup, c *Conn, r *rand.Rand, detach bool) {
	var ended atomic.Bool
	loop := func(f func(r *rand.Rand)) {
		own := rand.New(rand.NewPCG(r.Uint64(), 1))
		wg.Go(func() {
			for !ended.Load() {
				f(own)
			}
		})
	}
	soon := func(r *rand.Rand) time.Time {
		if r.IntN(3) == 0 {
			return time.Time{}
		}
		return time.Now().Add(time.Duration(r.IntN(3000)-500) * time.Microsecond)
	}
	var next byte
	loop(func(r *rand.Rand) {
		p := make([]byte, r.IntN(3)*r.IntN(40_000)+r.IntN(100))
		for i := range p {
			p[i] = next + byte(i)
		}
		n, _ := c.Write(p)
		next += byte(n)
	})
	var mu sync.Mutex
	var got byte
	for range 2 {
		p := make([]byte, 50_000)
		loop(func(r *rand.Rand) {
			mu.Lock()
			defer mu.Unlock()
			n, err := c.Read(p[:1+r.IntN(len(p)-1)])
			for i := range n {
				if p[i] != got {
					t.Errorf("read %d, want %d", p[i], got)
				}
				got++
			}
			if errors.Is(err, ErrProtocol) {
				t.Errorf("Read = %v", err)
			}
		})
	}
	loop(func(r *rand.Rand) { _ = c.SetWriteDeadline(soon(r)) })
	loop(func(r *rand.Rand) { _ = c.SetReadDeadline(soon(r)) })
	loop(func(r *rand.Rand) {
		_ = c.Ping()
		c.SetKeepAlive(time.Duration(r.IntN(3))*time.Millisecond, time.Second)
		time.Sleep(time.Millisecond)
	})
	pause := 5*time.Millisecond + time.Duration(r.IntN(20_000))*time.Microsecond
	for i := range 2 {
		wg.Go(func() {
			time.Sleep(pause)
			switch {
			case detach && i == 0:
				if nc, _, err := c.Detach(); err == nil {
					_ = nc.Close()
				}
			default:
				_ = c.Close()
			}
			ended.Store(true)
		})
	}
}
