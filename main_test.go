package culvert_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
)

// patience bounds what is awaited: much, for a machine that does other things, too.
const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newIdentity(t testing.TB) *identity.Identity {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// withPatience returns a context that ends with the test, or before that is hopeless.
func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A testRelay lets everybody do everything, unless its rules say otherwise.
type testRelay struct {
	id    *identity.Identity
	addr  string
	route string
	kill  func() // ends it with all conns
}

// startRelay starts one at an address, with an identity of its own or of one before.
func startRelay(t testing.TB, addr string, id *identity.Identity, rules relay.Config) *testRelay {
	t.Helper()
	local, err := channel.NewLocal(id)
	if err != nil {
		t.Fatal(err)
	}
	rules.Local = local
	if rules.Register == nil {
		rules.Register = func(channel.Peer) error { return nil }
	}
	if rules.Connect == nil {
		rules.Connect = func(channel.Peer, identity.Identifier) error { return nil }
	}
	s, err := relay.NewServer(rules)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ctx, ln) })
	r := &testRelay{id: id, addr: ln.Addr().String(), route: "tcp://" + ln.Addr().String() + "/" + id.Identifier().String()}
	r.kill = sync.OnceFunc(func() {
		cancel()
		serving.Wait()
	})
	t.Cleanup(r.kill)
	return r
}

func newRelay(t testing.TB) *testRelay {
	return startRelay(t, "127.0.0.1:0", newIdentity(t), relay.Config{})
}

// A pair is a listener and a dialer that may use its service.
type pair struct {
	t  testing.TB
	ln *culvert.Listener
	d  *culvert.Dialer
}

// A pairing says what differs from a pair that knows each other and meets at relays.
type pairing struct {
	relays   []*testRelay // none: the dialer comes directly
	listener func(*culvert.ListenerConfig)
	dialer   func(*culvert.DialerConfig)
}

func newPair(t testing.TB, p pairing) *pair {
	t.Helper()
	ours, theirs := newIdentity(t), newIdentity(t)
	lc := culvert.ListenerConfig{
		Config: culvert.Config{Identity: theirs, Keepalive: time.Second}, Service: "echo", Allow: []identity.Identifier{ours.Identifier()},
	}
	if p.relays == nil {
		lc.Listen = []string{"127.0.0.1:0"}
	}
	for _, r := range p.relays {
		lc.Relays = append(lc.Relays, r.route)
	}
	if p.listener != nil {
		p.listener(&lc)
	}
	ln := listen(t, lc)
	dc := culvert.DialerConfig{
		Config: culvert.Config{Identity: ours, Keepalive: time.Second}, Outlet: theirs.Identifier(), Routes: ln.Routes(), ConnectTimeout: patience,
	}
	if p.dialer != nil {
		p.dialer(&dc)
	}
	return &pair{t: t, ln: ln, d: newDialer(t, dc)}
}

// listen is Listen, with a listener that has ended when the test has.
func listen(t testing.TB, cfg culvert.ListenerConfig) *culvert.Listener {
	t.Helper()
	ln, err := culvert.Listen(withPatience(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Shutdown(ended()) })
	return ln
}

func newDialer(t testing.TB, cfg culvert.DialerConfig) *culvert.Dialer {
	t.Helper()
	d, err := culvert.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing the dialer: %v", err)
		}
	})
	return d
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// conns returns both ends of a new stream.
func (p *pair) conns() (dialed, accepted *culvert.Conn) {
	p.t.Helper()
	type result struct {
		c   *culvert.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := p.ln.AcceptConn()
		got <- result{c, err}
	}()
	dialed, err := p.d.Dial(withPatience(p.t), "echo")
	if err != nil {
		p.t.Fatal(err)
	}
	r := <-got
	if r.err != nil {
		p.t.Fatal(r.err)
	}
	for _, c := range []*culvert.Conn{dialed, r.c} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return dialed, r.c
}

// serve has everything accepted be handled, until the test's end or until stop is called,
// which ends the listener.
func (p *pair) serve(handle func(c *culvert.Conn)) (stop func()) {
	var handling sync.WaitGroup
	handling.Go(func() {
		for {
			c, err := p.ln.AcceptConn()
			if err != nil {
				return
			}
			handling.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	stop = sync.OnceFunc(func() {
		_ = p.ln.Shutdown(ended())
		handling.Wait()
	})
	p.t.Cleanup(stop)
	return stop
}

// echo says what it hears.
func echo(c *culvert.Conn) {
	if _, err := io.Copy(c, c); err != nil {
		_ = c.Abort()
	}
}

func wantEcho(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("writing: %v", err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("echo: got %q, %v, want %q", got, err, text)
	}
}

// wantCode wants an *Error with that code.
func wantCode(t testing.TB, err error, want code.Code) *culvert.Error {
	t.Helper()
	var e *culvert.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *culvert.Error with the code %s", err, want)
	}
	if e.Code != want || e.Reason == "" {
		t.Errorf("got code %s, reason %q; want %s and a reason", e.Code, e.Reason, want)
	}
	return e
}

// wantEnd wants c to end as want says, and in no clean end.
func wantEnd(t testing.TB, c net.Conn, want ...code.Code) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var e *culvert.Error
	if err == nil || !errors.As(err, &e) {
		t.Errorf("reading to the end: %v, want an *Error", err)
		return
	}
	for _, k := range want {
		if e.Code == k {
			return
		}
	}
	t.Errorf("reading to the end: %v, want one of %v", err, want)
}
