package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A fakeSession is a session without a network.
type fakeSession struct {
	route    int
	peer     channel.Peer
	over     chan error
	lost     chan struct{} // closed when Run has had its error
	draining chan struct{}
	closed   chan string   // the reason of Close
	linger   time.Duration // how long Run takes to return when the session is over
	openErr  error         // of Open, which gives no stream
	// answer is what OpenAnswered waits for and returns; nil: it is accepted.
	answer func(ctx context.Context) error

	mu      sync.Mutex
	pathErr error
	changed chan struct{}

	rerouted int // calls of Reroute

	err error // set before lost is closed
}

func (s *fakeSession) Reroute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rerouted++
}

func newFakeSession(route int) *fakeSession {
	return &fakeSession{route: route, over: make(chan error, 1), lost: make(chan struct{}), draining: make(chan struct{}), closed: make(chan string, 1), changed: make(chan struct{})}
}

// setPath says that the session has a path, or why it has none.
func (s *fakeSession) setPath(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pathErr = err
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeSession) Path() (int, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.route, s.changed, s.pathErr
}

func (s *fakeSession) Run(ctx context.Context) error {
	defer func() { time.Sleep(s.linger) }()
	defer close(s.lost)
	select {
	case s.err = <-s.over:
		return s.err
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *fakeSession) Open(context.Context, tunnel.Open) (*tunnel.Stream, error) {
	return nil, s.openErr
}

func (s *fakeSession) OpenAnswered(ctx context.Context, o tunnel.Open) (*tunnel.Stream, error) {
	if s.answer != nil {
		return nil, s.answer(ctx)
	}
	return s.Open(ctx, o)
}
func (s *fakeSession) Lost() <-chan struct{}       { return s.lost }
func (s *fakeSession) Err() error                  { return s.err }
func (s *fakeSession) Peer() channel.Peer          { return s.peer }
func (s *fakeSession) Fail(c code.Code, err error) { s.over <- &channel.LostError{Code: c, Err: err} }
func (s *fakeSession) Draining() <-chan struct{}   { return s.draining }
func (s *fakeSession) Close(_ code.Code, reason string) {
	select {
	case s.closed <- reason:
	default:
	}
}

// A fakeNet connects a link's routes as a test says.
type fakeNet struct {
	mu    sync.Mutex
	dials []time.Time // of all attempts
	// connect answers an attempt over the route with that index.
	connect func(ctx context.Context, i int) error
	// peer says who answers; nil: always the same nameless process.
	peer func() channel.Peer
}

func (n *fakeNet) link(t *testing.T, routes int) *link {
	t.Helper()
	var rs []route.Route
	for i := range routes {
		rs = append(rs, route.Route{{Host: "r" + string(rune('a'+i)), Port: uint16(1 + i), Identifier: identity.Identifier{byte(i + 1)}}})
	}
	l := newLink(identity.Identifier{9}, rs)
	l.connect = func(ctx context.Context, first int) (session, error) {
		for k := range routes {
			i := (first + k) % routes
			n.mu.Lock()
			n.dials = append(n.dials, time.Now())
			connect := n.connect
			n.mu.Unlock()
			err := connect(ctx, i)
			if err == nil {
				l.worked(i)
				s := newFakeSession(i)
				if n.peer != nil {
					s.peer = n.peer()
				}
				return s, nil
			}
			l.failed(i, err)
		}
		return nil, errors.New("no route works")
	}
	l.trace = linkTrace{
		failed: func(route.Route, error) {}, opened: func(*held) {}, draining: func(*held) {}, replaced: func(*held) {},
		ended: func(*held, error, bool) {},
	}
	return l
}

func (n *fakeNet) attempts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dials)
}

// start runs the link for the rest of the bubble.
func start(t *testing.T, l *link) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	t.Cleanup(func() {
		cancel(errShutdown)
		<-done
		if n := l.count(); n != 0 {
			t.Errorf("%d sessions are left after run", n)
		}
	})
}

// session acquires the link's session and releases it.
func (l *link) session(t *testing.T, wait time.Duration) *fakeSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	h, err := l.acquire(ctx)
	if err != nil {
		t.Fatalf("no session within %s: %v", wait, err)
	}
	l.release(h)
	return h.session.(*fakeSession)
}

func TestLinkTakesTheFirstRouteThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(_ context.Context, i int) error {
			if i < 2 {
				return fmt.Errorf("relay %d is down", i)
			}
			return nil
		}}
		l := n.link(t, 4)
		start(t, l)
		if got := l.session(t, time.Millisecond).route; got != 2 {
			t.Errorf("session over route %d, want 2", got)
		}
		if got := n.attempts(); got != 3 {
			t.Errorf("%d attempts, want 3: the routes behind the first that works are left alone", got)
		}
	})
}

// A session without a path takes no new streams. When it stays without, another
// one is made; the old one keeps its streams.
func TestLinkReplacesASessionWithoutAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		old, err := l.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := old.session.(*fakeSession)
		for range 3 {
			s.setPath(errors.New("reset"))
			if err := l.ready(); err == nil || !strings.Contains(err.Error(), "reset") {
				t.Errorf("ready: %v, want why not", err)
			}
			time.Sleep(pathPatience - time.Millisecond)
			s.setPath(nil)
			if got := l.session(t, time.Millisecond); got != s {
				t.Error("a session that has a path again is not used")
			}
		}
		began := time.Now()
		s.setPath(errors.New("reset"))
		next := l.session(t, time.Minute)
		if took := time.Since(began); next == s || took != pathPatience {
			t.Errorf("new streams: same session %v, after %s; want another after %s", next == s, took, pathPatience)
		}
		s.setPath(nil)
		time.Sleep(time.Hour)
		select {
		case <-old.done:
			t.Error("the old session was ended while a stream was open")
		default:
		}
		s.setPath(errors.New("reset"))
		l.release(old)
		synctest.Wait()
		select {
		case <-old.done:
			t.Error("the old session was closed while nobody could hear of it")
		default:
		}
		s.setPath(nil)
		synctest.Wait()
		select {
		case <-old.done:
		default:
			t.Error("the old session was not ended after its last stream")
		}
	})
}

// While another session is tried for, the old one may get a path again.
func TestLinkComesBackToASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		s := l.session(t, time.Second)
		n.mu.Lock()
		n.connect = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		n.mu.Unlock()
		s.setPath(errors.New("reset"))
		time.Sleep(5 * time.Second)
		s.setPath(nil)
		if got := l.session(t, time.Millisecond); got != s {
			t.Error("another session is used")
		}
		if got := l.count(); got != 1 {
			t.Errorf("%d sessions, want 1", got)
		}
		synctest.Wait()
		// It may get one just when the other session is there.
		n.mu.Lock()
		n.connect = func(context.Context, int) error {
			s.setPath(nil)
			return nil
		}
		n.mu.Unlock()
		s.setPath(errors.New("reset"))
		time.Sleep(2 * pathPatience)
		synctest.Wait()
		if got := l.session(t, time.Millisecond); got != s {
			t.Error("another session is used though the old one has a path")
		}
		s.setPath(errors.New("reset"))
		s.over <- errors.New("unknown_channel")
		synctest.Wait()
		if err := l.ready(); err == nil {
			t.Error("ready without a session")
		}
	})
}

func TestLinkReconnectsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		for range 5 {
			s := l.session(t, time.Minute)
			time.Sleep(time.Hour)
			s.over <- errors.New("path ended")
			synctest.Wait()
			if l.ready() == nil {
				t.Error("ready without a session")
			}
			began := time.Now()
			if next := l.session(t, time.Minute); next == s {
				t.Error("the lost session is still handed out")
			}
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Errorf("reconnecting took %s, want at most 50ms", took)
			}
		}
	})
}

// A session that is over is of no use, however long it takes to say goodbye.
func TestLinkDoesNotWaitForAGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		s := l.session(t, time.Minute)
		s.linger = 5 * time.Second
		time.Sleep(time.Hour)
		s.over <- errors.New("peer broke the protocol")
		synctest.Wait()
		if err := l.ready(); err == nil || !strings.Contains(err.Error(), "broke the protocol") {
			t.Errorf("ready: %v, want why not", err)
		}
		began := time.Now()
		if next := l.session(t, time.Minute); next == s || time.Since(began) > 50*time.Millisecond {
			t.Errorf("new streams: same session %v, after %s; want another at once", next == s, time.Since(began))
		}
	})
}

// A session that opens no more streams, though it is not over (a mux has only so
// many numbers), is left to those that it has.
func TestInletLeavesASessionThatOpensNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		in := &Inlet{}
		in.connectTimeout.Store(int64(10 * time.Second))
		old, err := l.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		old.session.(*fakeSession).openErr = tunnel.ErrUsedUp
		time.Sleep(time.Hour)
		began := time.Now()
		_, h, err := in.open(t.Context(), &inletService{upstream: l}, tunnel.Open{})
		if err != nil || h == old || time.Since(began) > time.Second {
			t.Fatalf("open: same session %v, %v, after %s; want another at once", h == old, err, time.Since(began))
		}
		l.release(h)
		select {
		case <-old.done:
			t.Error("the old session was ended while it had a stream")
		default:
		}
		l.release(old)
		synctest.Wait()
		select {
		case <-old.done:
		default:
			t.Error("the old session was not ended after its last stream")
		}
	})
}

// A client that comes while a session waits for its path is not made to wait for
// the longest pause either.
func TestLinkHurriesForAClientWithoutAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		s := l.session(t, time.Second)
		n.mu.Lock()
		n.connect = func(context.Context, int) error { return errors.New("connection refused") }
		n.mu.Unlock()
		s.setPath(errors.New("reset"))
		for range 20 {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			before := n.attempts()
			ctx, cancel := context.WithTimeout(t.Context(), hurried+50*time.Millisecond)
			_, err := l.acquire(ctx)
			cancel()
			if err == nil {
				t.Fatal("acquire: no error")
			}
			if n.attempts() == before {
				t.Errorf("no attempt within %s", hurried)
			}
		}
	})
}

func TestLinkBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		n := &fakeNet{}
		n.connect = func(context.Context, int) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if down {
				return errors.New("connection refused")
			}
			return nil
		}
		l := n.link(t, 1)
		start(t, l)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if d := n.dials[1].Sub(n.dials[0]); d > 50*time.Millisecond {
			t.Errorf("first retry after %s, want at most 50ms", d)
		}
		for i := 1; i < len(n.dials); i++ {
			if d := n.dials[i].Sub(n.dials[i-1]); d > 3*time.Second+time.Millisecond || d < time.Millisecond {
				t.Errorf("retry %d after %s", i, d)
			}
		}
		if got := n.attempts(); got < 200 || got > 700 {
			t.Errorf("%d attempts in 10 minutes, want one each two seconds or so, for ever", got)
		}
		// A client that waits makes them come faster, but not in a tight loop.
		before := n.attempts()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := l.acquire(ctx); err == nil {
			t.Error("acquire: no error")
		}
		cancel()
		if got := n.attempts() - before; got < 25 || got > 60 {
			t.Errorf("%d attempts while a client waited 10 s, want one each %s", got, hurried)
		}
		n.mu.Lock()
		down = false
		n.mu.Unlock()
		s := l.session(t, time.Second)
		time.Sleep(time.Minute)
		began := time.Now()
		s.over <- errors.New("path ended")
		l.session(t, time.Minute)
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("after a success, the next retry came after %s", took)
		}
	})
}

// An outlet that takes a channel and ends it at once is not asked in a tight
// loop, and another route gets its chance.
func TestLinkBacksOffWhenSessionsDoNotLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 2)
		opened := map[int]int{}
		l.trace.opened = func(h *held) {
			s := h.session.(*fakeSession)
			opened[s.route]++
			s.over <- errors.New("peer refuses: limit")
		}
		start(t, l)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := n.attempts(); got > 70 {
			t.Errorf("%d attempts in a minute", got)
		}
		if opened[0] < 3 || opened[1] < 3 {
			t.Errorf("sessions by route: %v, want both", opened)
		}
		if err := l.ready(); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("ready: %v, want the reason", err)
		}
	})
}

func TestLinkMovesFromADrainingOutlet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		ctx := t.Context()
		old, err := l.acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		close(old.session.(*fakeSession).draining)
		synctest.Wait()
		began := time.Now()
		next, err := l.acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if next == old || time.Since(began) > 50*time.Millisecond {
			t.Errorf("new streams: same session %v, after %s", next == old, time.Since(began))
		}
		time.Sleep(time.Hour)
		select {
		case <-old.done:
			t.Error("the draining session was ended while a stream was open")
		default:
		}
		l.release(old)
		synctest.Wait()
		select {
		case <-old.done:
		default:
			t.Error("the draining session was not ended after its last stream")
		}
		l.release(next)
		if err := l.ready(); err != nil {
			t.Errorf("ready: %v", err)
		}
	})
}

func TestAcquireFailsWithTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{connect: func(_ context.Context, i int) error { return fmt.Errorf("relay %c is on fire", 'a'+i) }}
		l := n.link(t, 2)
		start(t, l)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := l.acquire(ctx)
		var none *noChannelError
		if !errors.As(err, &none) {
			t.Fatalf("acquire: %v, want a noChannelError", err)
		}
		for _, want := range []string{l.outlet.String(), "route 1: relay a is on fire", "route 2: relay b is on fire"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("acquire: %v, want it to name %q", err, want)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("acquire took %s, want 10s", took)
		}
	})
}

func TestQuietTellsAnErrorOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quiet
		told := func(text string) bool { return q.level(text, 1) == 1 }
		steps := []struct {
			wait time.Duration
			text string
			want bool
		}{
			{0, "read tcp 10.0.0.1:4711->10.0.0.2:4000: reset", true},
			{time.Second, "read tcp 10.0.0.1:4712->10.0.0.2:4000: reset", false}, // only the local port differs
			{time.Second, "read tcp 10.0.0.1:4713->10.0.0.3:4000: reset", true},
			{0, "read tcp 10.0.0.1:4000->10.0.0.4:4711: reset", true},
			{0, "read tcp 10.0.0.1:4000->10.0.0.4:4712: reset", false}, // the other side's port alone differs
			{0, "read tcp [::1]:4000->[::2]:4711: reset", true},
			{0, "read tcp [::1]:4000->[::2]:4712: reset", false},
			{time.Second, "refused", true},
			{time.Second, "refused", false},
			{57 * time.Second, "read tcp 10.0.0.1:4714->10.0.0.2:4000: reset", true}, // a minute after the first
		}
		for _, s := range steps {
			time.Sleep(s.wait)
			if got := told(s.text); got != s.want {
				t.Errorf("%q: told %v, want %v", s.text, got, s.want)
			}
		}
		q.forget()
		if !told("refused") {
			t.Error("after forget: not told")
		}
		n := 0
		for i := range 1000 {
			if told(fmt.Sprint("error ", i)) {
				n++
			}
		}
		if n > quietKinds {
			t.Errorf("%d different errors told at once, want at most %d", n, quietKinds)
		}
	})
}
