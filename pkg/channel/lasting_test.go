package channel

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvert-net/culvert/pkg/code"
)

func TestChannelConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		l := newLab(t, 1, Settings{}, Timing{}, Limits{})
		x, y := l.open()
		return x, y, func() { closeChannels(t, x, y) }, nil
	})
}

// TestChannelResumes carries data both ways while paths die at random moments.
func TestChannelResumes(t *testing.T) {
	l := newLab(t, 2, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	const size = 64 << 20
	deaths := 40
	if testing.Short() {
		deaths = 10
	}
	stop := make(chan struct{})
	cutting := make(chan int)
	go func() {
		n := 0
		for ; n < deaths; n++ {
			select {
			case <-stop:
				cutting <- n
				return
			case <-time.After(time.Duration(mrand.IntN(30)) * time.Millisecond):
			}
			l.cutAll()
		}
		cutting <- n
	}()
	sums := make(chan [2][32]byte, 2)
	for _, way := range [][2]*Channel{{x, y}, {y, x}} {
		go func() { sums <- transfer(t, way[0], way[1], size) }()
	}
	for range 2 {
		if s := <-sums; s[0] != s[1] {
			t.Error("what arrived is not what was sent")
		}
	}
	close(stop)
	if n := <-cutting; n < 5 {
		t.Errorf("only %d deaths in that time", n)
	}
	closeChannels(t, x, y)
}

// transfer writes random bytes in random pieces and returns the sums of what
// was written and read.
func transfer(t *testing.T, from, to *Channel, size int) (sums [2][32]byte) {
	t.Helper()
	sent, got := sha256.New(), sha256.New()
	written := make(chan error, 1)
	go func() {
		buf := make([]byte, 300<<10)
		_, _ = rand.Read(buf)
		for left := size; left > 0; {
			n := min(left, 1+mrand.IntN(len(buf)))
			sent.Write(buf[:n])
			if _, err := from.Write(buf[:n]); err != nil {
				written <- err
				return
			}
			left -= n
			buf[0]++
		}
		written <- nil
	}()
	if _, err := io.CopyN(got, to, int64(size)); err != nil {
		t.Errorf("reading: %v", err)
	}
	if err := <-written; err != nil {
		t.Errorf("writing: %v", err)
	}
	return [2][32]byte{[32]byte(sent.Sum(nil)), [32]byte(got.Sum(nil))}
}

// TestCloseIsResent cuts the path before the CLOSE can have arrived: it comes
// over the next one, and the end is a clean one.
func TestCloseIsResent(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	l.refuseRoutes(noRoutes)
	l.cutAll()
	waitUp(t, x, false)
	want := bytes.Repeat([]byte("data"), 5000)
	if _, err := x.Write(want); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- x.CloseWithReason(code.OK, "") }()
	l.refuseRoutes(nil)
	got, err := io.ReadAll(y)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d and a clean end", len(got), err, len(want))
	}
	if err := y.Close(); err != nil {
		t.Errorf("Close of the peer: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestGrace leaves both sides without a path: each ends the channel with an
// error that is no clean end, when its time is over.
func TestGrace(t *testing.T) {
	l := newLab(t, 1, Settings{Grace: 200 * time.Millisecond}, Timing{}, Limits{})
	x, y := l.open()
	l.refuseRoutes(noRoutes)
	l.cutAll()
	for _, c := range []*Channel{x, y} {
		_, err := c.Read(make([]byte, 1))
		var lost *LostError
		if !errors.As(err, &lost) || lost.Code != code.Timeout {
			t.Errorf("Read = %v, want a LostError of timeout", err)
		}
		if _, err := c.Write([]byte("x")); !errors.As(err, &lost) {
			t.Errorf("Write = %v, want a LostError", err)
		}
	}
	if n := len(l.table.channels); n != 0 {
		t.Errorf("%d channels are kept", n)
	}
}

// TestUnknownChannel resumes at a table that has forgotten the channel.
func TestUnknownChannel(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	y.Fail(code.Internal, errors.New("forgotten"))
	_, err := x.Read(make([]byte, 1))
	var lost *LostError
	if !errors.As(err, &lost) || lost.Code != code.UnknownChannel {
		t.Errorf("Read = %v, want a LostError of unknown_channel", err)
	}
}

// waitUp waits until c has a path, or has none.
func waitUp(t testing.TB, c *Channel, want bool) {
	t.Helper()
	waitUpFor(t, c, want, 10*time.Second)
}

func waitUpFor(t testing.TB, c *Channel, want bool, most time.Duration) {
	t.Helper()
	deadline := time.After(most)
	for {
		up, changed := c.Up()
		if up == want {
			return
		}
		select {
		case <-changed:
		case <-c.Done():
			t.Fatalf("channel is over: %v", c.Err())
		case <-deadline:
			t.Fatalf("up = %v for %s", up, most)
		}
	}
}

// cutAndResume cuts all paths and waits until each of the channels has another one.
func (l *lab) cutAndResume(cs ...*Channel) {
	l.t.Helper()
	var before []uint64
	for _, c := range cs {
		before = append(before, c.State().Changes)
	}
	l.cutAll()
	end := time.After(20 * time.Second)
	for i, c := range cs {
		// That it has none meanwhile may pass too fast to be seen.
		for up, changed := c.Up(); !up || c.State().Changes == before[i]; up, changed = c.Up() {
			select {
			case <-changed:
			case <-c.Done():
				l.t.Fatalf("channel is over: %v", c.Err())
			case <-end:
				l.t.Fatalf("no other path within 20 s: %+v", c.State())
			}
		}
	}
}

// TestEndStaysReadable: what has come before the peer's CLOSE, and the end, are
// read even when the channel fails before they are.
func TestEndStaysReadable(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	want := bytes.Repeat([]byte("last words"), 10_000)
	if _, err := x.Write(want); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- x.Close() }()
	first := make([]byte, 10)
	if _, err := io.ReadFull(y, first); err != nil {
		t.Fatal(err)
	}
	awaitPeerEnd(t, y)
	y.Fail(code.Timeout, errors.New("no path"))
	rest, err := io.ReadAll(y)
	if got := append(first, rest...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d and a clean end", len(got), err, len(want))
	}
	_ = y.Close()
	if used := y.set.Buffers.Used(); used != 0 {
		t.Errorf("%d bytes are held after Close", used)
	}
	<-closed
}

// awaitPeerEnd waits until c has its peer's CLOSE, which it has acknowledged.
func awaitPeerEnd(t testing.TB, c *Channel) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.peerEnd == nil && c.err == nil {
		c.readable.Wait()
	}
}
