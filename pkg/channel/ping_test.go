package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// pingTime bounds a ping that has to be answered.
const pingTime = 10 * time.Second

// reads has somebody read the channel until it ends.
func (l *lab) reads(c *Channel) {
	l.serving.Go(func() { _, _ = io.Copy(io.Discard, c) })
}

// ping wants an answer within the time.
func ping(t *testing.T, c *Channel) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pingTime)
	defer cancel()
	began := time.Now()
	took, err := c.Ping(ctx)
	if err != nil || took <= 0 || took > time.Since(began) {
		t.Errorf("Ping = %v, %v after %v", took, err, time.Since(began))
	}
}

// Both sides can ping, many at once, while bulk is on its way.
func TestPing(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	l.reads(x)
	l.reads(y)
	bulk := make(chan struct{})
	go func() {
		defer close(bulk)
		_, _ = x.Write(make([]byte, 1<<20))
	}()
	var pinging sync.WaitGroup
	for range 16 {
		for _, c := range []*Channel{x, y} {
			pinging.Go(func() { ping(t, c) })
		}
	}
	pinging.Wait()
	<-bulk
	for _, c := range []*Channel{x, y} {
		if n := waitingPings(c); n != 0 {
			t.Errorf("%d pings wait after all have returned", n)
		}
	}
	closeChannels(t, x, y)
	if _, err := x.Ping(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Ping of a closed channel = %v, want net.ErrClosed", err)
	}
}

func waitingPings(c *Channel) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pings)
}

// A ping whose path ends says so, and another one works when there is another path.
func TestPingOverAPathThatEnds(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	l.reads(x)
	l.reads(y)
	l.refuseRoutes(noRoutes)
	_, changed := x.Up()
	l.cutAll()
	<-changed
	if _, err := x.Ping(context.Background()); !errors.Is(err, ErrNoPath) {
		t.Errorf("Ping without a path = %v, want ErrNoPath", err)
	}
	l.refuseRoutes(nil)
	for up, changed := x.Up(); !up; up, changed = x.Up() {
		<-changed
	}
	ping(t, x)

	reason := errors.New("enough")
	x.Fail(code.Aborted, reason)
	if _, err := x.Ping(context.Background()); !errors.Is(err, reason) {
		t.Errorf("Ping of a channel that is over = %v, want why", err)
	}
}

// What a peer makes up is no answer, its silence neither; a ping ends with its path,
// its channel or its context.
func TestPingOfAPeerThatDoesNotAnswer(t *testing.T) {
	l := newLab(t, 1, Settings{Keepalive: time.Minute}, Timing{}, Limits{})
	p, y, _ := l.rawOpen()
	l.reads(y)

	type result struct {
		took time.Duration
		err  error
	}
	results := make(chan result, maxPings)
	begin := func(ctx context.Context) {
		go func() {
			took, err := y.Ping(ctx)
			results <- result{took, err}
		}()
	}
	begin(context.Background())
	for waitingPings(y) < 1 {
		time.Sleep(time.Millisecond)
	}
	y.mu.Lock()
	since := uint64(y.pings[0].since)
	y.mu.Unlock()
	sent := uint64(0)
	for sent < since { // the channel's own come before
		sent = binary.BigEndian.Uint64(p.hearPing())
	}
	pong := func(at uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{byte(typePong)}, at)
	}
	// From before the ping, from the future, and far from it.
	p.say(pong(0), pong(1), pong(sent+uint64(time.Hour)), pong(1<<63), pong(^uint64(0)))
	p.say(pong(sent))
	if r := <-results; r.err != nil || r.took <= 0 || r.took > pingTime {
		t.Errorf("Ping = %v, %v after one true answer among others", r.took, r.err)
	}

	for range maxPings {
		begin(context.Background())
	}
	for waitingPings(y) < maxPings {
		time.Sleep(time.Millisecond)
	}
	if _, err := y.Ping(context.Background()); err == nil || errors.Is(err, ErrNoPath) {
		t.Errorf("ping %d beside others = %v, want an error of its own", maxPings+1, err)
	}
	_ = p.nc.Close()
	for range maxPings {
		if r := <-results; !errors.Is(r.err, ErrNoPath) {
			t.Errorf("Ping = %v, %v when its path has ended; want ErrNoPath", r.took, r.err)
		}
	}
}

// A ping is given up when its context ends.
func TestPingIsGivenUp(t *testing.T) {
	l := newLab(t, 1, Settings{Keepalive: time.Minute}, Timing{}, Limits{})
	p, y, _ := l.rawOpen()
	l.reads(y)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := y.Ping(ctx)
		done <- err
	}()
	p.hearPing()
	reason := errors.New("enough")
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Errorf("Ping = %v, want the context's cause", err)
	}
	if n := waitingPings(y); n != 0 {
		t.Errorf("%d pings wait, want none", n)
	}
}

// hearPing returns the body of the next PING, whatever comes before it.
func (p *rawPeer) hearPing() []byte {
	p.t.Helper()
	_ = p.nc.SetReadDeadline(time.Now().Add(pingTime))
	p.readMu.Lock()
	defer p.readMu.Unlock()
	for {
		if err := p.awaitLocked(); err != nil {
			p.t.Fatalf("waiting for a PING: %v", err)
		}
		n := p.recordLenLocked()
		sealed := p.buf[p.r+headerLen : p.r+headerLen+n]
		p.r += headerLen + n
		plain, err := p.openLocked(sealed)
		if err != nil {
			p.t.Fatal(err)
		}
		if recordType(plain[0]) == typePing {
			return append([]byte(nil), plain[typeLen:]...)
		}
	}
}
