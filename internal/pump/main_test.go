package pump

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is to happen, on a busy machine.
const patience = time.Minute

// pair returns the two ends of a loopback connection.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// A copying is one copy under test with the peers of its two sides.
type copying struct {
	left, right *net.TCPConn // the peers of a and b
	cancel      context.CancelCauseFunc
	result      chan Result
}

// wait returns the copy's result, which has to come by itself.
func (c *copying) wait(t testing.TB) Result {
	t.Helper()
	select {
	case r := <-c.result:
		return r
	case <-time.After(patience):
		t.Fatal("the copy does not end")
		return Result{}
	}
}

func (c *copying) run(t testing.TB, f func(ctx context.Context) Result) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c.cancel, c.result = cancel, make(chan Result, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.result <- f(ctx)
	}()
	t.Cleanup(func() { cancel(nil); <-done })
}

func startSplice(t testing.TB, opt Options) *copying {
	t.Helper()
	a, left := pair(t)
	b, right := pair(t)
	c := &copying{left: left, right: right}
	c.run(t, func(ctx context.Context) Result { return Splice(ctx, a, b, opt) })
	return c
}

func startBoth(t testing.TB) *copying {
	t.Helper()
	a, left := pair(t)
	b, right := pair(t)
	c := &copying{left: left, right: right}
	c.run(t, func(ctx context.Context) Result { return Both(ctx, a, b) })
	return c
}

// copies are the ways to copy that have to behave alike between sockets.
var copies = []struct {
	name  string
	start func(t testing.TB) *copying
}{
	{"splice", func(t testing.TB) *copying { return startSplice(t, Options{}) }},
	{"splice without pipes", func(t testing.TB) *copying { return startSplice(t, Options{Pipes: noPipes()}) }},
	{"splice with limits", func(t testing.TB) *copying {
		return startSplice(t, Options{Idle: time.Minute, Rate: 1 << 30})
	}},
	{"both", startBoth},
	{"both with limits", func(t testing.TB) *copying {
		c, _ := startLimited(t, NewRate(1<<30), NewRate(1<<30))
		return c
	}},
}

// sides runs a test from each side of each way to copy: near is the peer that
// acts, far the other.
func sides(t *testing.T, test func(t *testing.T, c *copying, near, far *net.TCPConn, side Side)) {
	for _, way := range copies {
		t.Run(way.name+"/a", func(t *testing.T) {
			c := way.start(t)
			test(t, c, c.left, c.right, A)
		})
		t.Run(way.name+"/b", func(t *testing.T) {
			c := way.start(t)
			test(t, c, c.right, c.left, B)
		})
	}
}

func soon(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(patience))
}
