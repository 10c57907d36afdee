package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// soonEnough is how long what is to happen at once may take on a machine that has much
// else to do: less than any time that it could be kept waiting by.
const soonEnough = 8 * time.Second

func newIdentity(t testing.TB) *identity.Identity {
	t.Helper()
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newLocal(t testing.TB) *channel.Local { return localOf(t, newIdentity(t)) }

// localOf returns one more process of an identity.
func localOf(t testing.TB, id *identity.Identity) *channel.Local {
	t.Helper()
	l, err := channel.NewLocal(id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A journal keeps what a Trace has told, as lines, for tests to wait for.
type journal struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newJournal() *journal { return &journal{more: make(chan struct{})} }

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	close(j.more)
	j.more = make(chan struct{})
}

// count returns how many lines hold s.
func (j *journal) count(s string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if strings.Contains(l, s) {
			n++
		}
	}
	return n
}

// await waits until n lines hold s.
func (j *journal) await(t testing.TB, n int, s string) {
	t.Helper()
	end := time.After(patience)
	for {
		j.mu.Lock()
		more := j.more
		j.mu.Unlock()
		if j.count(s) >= n {
			return
		}
		select {
		case <-more:
		case <-end:
			t.Fatalf("not within %v: %d times %q; there was:\n%s", patience, n, s, j)
		}
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

func (j *journal) trace() *Trace {
	return &Trace{
		AcceptPaused:    func(err error, pause time.Duration) { j.add("accept paused %v %v", pause, err) },
		HandshakeFailed: func(_ net.Addr, err error) { j.add("handshake failed %v", err) },
		Refused: func(r Refusal) {
			if !r.Usual {
				j.add("refused %s %s %s", r.Request, r.Code, r.Reason)
			}
		},
		Abandoned: func(_ channel.Peer, request string, _ uint64, err error) { j.add("abandoned %s %v", request, err) },
		Registered: func(r RegistrationStatus) {
			j.add("registered %s", r.Instance)
		},
		RegistrationEnded: func(r RegistrationStatus, c code.Code, err error) {
			j.add("registration ended %s %s %v", c, r.Instance, err)
		},
		SpareLost: func(_ channel.Peer, err error) { j.add("spare lost %v", err) },
		Joined:    func(s JoinStatus) { j.add("joined %s %s %s", s.Kind, s.Target, s.TargetInstance) },
		JoinEnded: func(s JoinStatus, _ code.Code, err error) {
			j.add("join ended %s to target %d to caller %d %v", s.Kind, s.ToTarget, s.ToCaller, err)
		},
		Found: func(f Finding) { j.add("found %d of %s, %d left out", f.Listed, f.Service, f.LeftOut) },
	}
}

func (j *journal) agentTrace() *AgentTrace {
	return &AgentTrace{
		LookupFailed: func(err error) { j.add("lookup failed %v", err) },
		Registered:   func(address string, _ channel.Peer) { j.add("registered at %s", address) },
		Lost:         func(address string, err error) { j.add("lost at %s %v", address, err) },
		Draining:     func(address string) { j.add("draining at %s", address) },
		ParkFailed:   func(address string, err error) { j.add("park failed at %s %v", address, err) },
		Joined:       func(address string) { j.add("joined at %s", address) },
	}
}

// A testRelay is a relay that runs.
type testRelay struct {
	*Server
	local *channel.Local
	addr  string // ip:port
	dial  func() (net.Conn, error)
	log   *journal
	stop  func() // ends Serve and waits for it
}

// hop returns the relay's hop, under another host if one is given.
func (r *testRelay) hop(t testing.TB, host ...string) route.Hop {
	t.Helper()
	ap := netip.MustParseAddrPort(r.addr)
	h := route.Hop{Host: ap.Addr().String(), Port: ap.Port(), Identifier: r.local.Identifier()}
	if len(host) > 0 {
		h.Host = host[0]
	}
	return h
}

func allowAll(channel.Peer) error                             { return nil }
func allowAllOutlets(channel.Peer, identity.Identifier) error { return nil }
func allowAllTo(channel.Peer, string) error                   { return nil }
func listen(t testing.TB, a string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// startRelay runs a relay that allows everything, changed by with.
func startRelay(t testing.TB, with ...func(*Config)) *testRelay {
	t.Helper()
	return startRelayOn(t, listen(t, "127.0.0.1:0"), newLocal(t), with...)
}

func startRelayOn(t testing.TB, ln net.Listener, local *channel.Local, with ...func(*Config)) *testRelay {
	t.Helper()
	log := newJournal()
	cfg := Config{
		Local: local, Register: allowAll, Connect: allowAllOutlets, Extend: allowAllTo, Trace: log.trace(),
		Limits: Limits{HandshakesPerSecond: 100_000},
		// An outlet whose steps a test takes answers in time on a busy machine, too, and so
		// does the next one; the caller waits for 10 s.
		Timing: Timing{Going: 8 * time.Second, Hold: 10 * time.Second},
	}
	for _, w := range with {
		w(&cfg)
	}
	if cfg.Audit == nil {
		keepLedger(t, &cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	r := &testRelay{Server: s, local: local, addr: ln.Addr().String(), log: log}
	r.dial = func() (net.Conn, error) { return net.Dial("tcp", r.addr) }
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// A testAgent is an outlet's agent that runs.
type testAgent struct {
	*Agent
	local *channel.Local
	log   *journal
	stop  func()
}

// echo is a Handle that sends back what it gets. It keeps io.Copy from using
// splice(2), which would hold a pipe.
func echo(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	_, _ = io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc})
}

// handled makes a Handle out of a func that does not ask by which relay a conn
// has come.
func handled(f func(context.Context, net.Conn)) func(context.Context, net.Conn, string) {
	return func(ctx context.Context, nc net.Conn, _ string) { f(ctx, nc) }
}

// saying is an echo that first says who echoes.
func saying(name string) func(context.Context, net.Conn) {
	return func(ctx context.Context, nc net.Conn) {
		_, _ = nc.Write([]byte(name + "\n"))
		echo(ctx, nc)
	}
}

func startAgent(t testing.TB, local *channel.Local, r route.Route, with ...func(*AgentConfig)) *testAgent {
	t.Helper()
	log := newJournal()
	cfg := AgentConfig{
		Dialer: &Dialer{Local: local}, Route: r, Handle: handled(echo), Trace: log.agentTrace(),
		MaxBackoff: 200 * time.Millisecond,
	}
	for _, w := range with {
		w(&cfg)
	}
	a, err := NewAgent(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	ta := &testAgent{Agent: a, local: local, log: log}
	ta.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(ta.stop)
	return ta
}

// path makes a path that has to work.
func path(t testing.TB, d *Dialer, r route.Route, outlet identity.Identifier, instance *channel.Instance) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, err := d.Path(ctx, r, outlet, instance, 0)
	if err != nil {
		t.Fatalf("path along %s: %v", r, err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc
}

// noPath makes a path that has to fail, and returns why it did.
func noPath(t testing.TB, d *Dialer, r route.Route, outlet identity.Identifier, instance *channel.Instance) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, err := d.Path(ctx, r, outlet, instance, 0)
	if err == nil {
		nc.Close()
		t.Fatalf("path along %s: got one, want an error", r)
	}
	return err
}

// carries checks that bytes go to an echo and come back.
func carries(t testing.TB, nc net.Conn, text string) {
	t.Helper()
	if _, err := nc.Write([]byte(text)); err != nil {
		t.Fatalf("writing %q: %v", text, err)
	}
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(nc, buf); err != nil || string(buf) != text {
		t.Fatalf("got %q, %v back; want %q", buf, err, text)
	}
}

// hears checks what comes first.
func hears(t testing.TB, nc net.Conn, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(nc, buf); err != nil || string(buf) != text {
		t.Fatalf("got %q, %v; want %q", buf, err, text)
	}
}

// wantRefusal checks that err holds a refusal with the code and words.
func wantRefusal(t testing.TB, err error, c code.Code, words string) {
	t.Helper()
	var r *channel.RefusedError
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal with %s", err, c)
	}
	if r.Code != c || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), c.String()) {
		t.Fatalf("got %q with %s, want %s and %q", err, r.Code, c, words)
	}
}

// eventually waits for what no event announces.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// hosts is a LookupHost that knows a few names, and can be changed.
type hosts struct {
	mu sync.Mutex
	m  map[string][]string
}

func (h *hosts) set(name string, ips ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = make(map[string][]string)
	}
	h.m[name] = ips
}

func (h *hosts) lookup(_ context.Context, host string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ips, ok := h.m[host]; ok {
		return ips, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// A byHand is an outlet whose every step a test takes.
type byHand struct {
	d     *Dialer
	relay *testRelay
}

func newByHand(t testing.TB, r *testRelay) *byHand {
	return &byHand{d: (&Dialer{Local: newLocal(t), HandshakeTimeout: patience}).withDefaults(), relay: r}
}

// ask makes one request and returns its conn after the ok.
func (o *byHand) ask(t testing.TB, r request) (net.Conn, *channel.Conn, error) {
	t.Helper()
	nc, err := o.relay.dial()
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := o.d.ask(context.Background(), nc, o.relay.local.Identifier(), r)
	if err == nil {
		t.Cleanup(func() { drop(nc, conn) })
		_ = conn.SetReadDeadline(time.Now().Add(patience))
	}
	return nc, conn, err
}

func (o *byHand) mustAsk(t testing.TB, r request) (net.Conn, *channel.Conn) {
	t.Helper()
	nc, conn, err := o.ask(t, r)
	if err != nil {
		t.Fatalf("%s: %v", r.Kind, err)
	}
	return nc, conn
}

// register returns the control conn.
func (o *byHand) register(t testing.TB) *channel.Conn {
	t.Helper()
	_, conn := o.mustAsk(t, request{Kind: kindRegister})
	return conn
}

// park returns a parked conn, and waits until the relay has it.
func (o *byHand) park(t testing.TB) (net.Conn, *channel.Conn) {
	t.Helper()
	before := o.spares()
	nc, conn := o.mustAsk(t, request{Kind: kindPark})
	eventually(t, "the parked conn is among the spares", func() bool { return o.spares() > before })
	return nc, conn
}

func (o *byHand) spares() (n int) {
	for _, r := range o.relay.Status().Registrations {
		if r.Instance == o.d.Local.Instance().String() {
			n += r.Spares
		}
	}
	return n
}

// going answers go on a parked conn and returns it raw.
func going(t testing.TB, conn *channel.Conn) net.Conn {
	t.Helper()
	expect(t, conn, msgGo)
	if err := writeMessage(conn, message{Kind: msgGoing}); err != nil {
		t.Fatal(err)
	}
	raw, early, err := conn.Detach()
	if err != nil || len(early) > 0 {
		t.Fatalf("detaching: %q, %v", early, err)
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	return raw
}

// expect reads messages until one of kind comes; only renewed and more are
// passed over.
func expect(t testing.TB, conn *channel.Conn, kind messageKind) message {
	t.Helper()
	for {
		m, err := readMessage(conn)
		if err != nil {
			t.Fatalf("waiting for message %d: %v", kind, err)
		}
		if m.Kind == kind {
			return m
		}
		if m.Kind != msgRenewed && m.Kind != msgMore {
			t.Fatalf("got message %d, want %d", m.Kind, kind)
		}
	}
}

// later runs a Path in the background.
func later(d *Dialer, r route.Route, outlet identity.Identifier) <-chan result {
	ch := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		nc, err := d.Path(ctx, r, outlet, nil, 0)
		if nc != nil {
			_ = nc.SetDeadline(time.Now().Add(patience))
		}
		ch <- result{nc, err}
	}()
	return ch
}

type result struct {
	nc  net.Conn
	err error
}

func (r result) must(t testing.TB) net.Conn {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.nc.Close() })
	return r.nc
}
