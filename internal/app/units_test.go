package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

func id(n byte) identity.Identifier { return identity.Identifier{n} }

func TestPolicyDeniesByDefault(t *testing.T) {
	p := NewOutletPolicy([]config.OutletService{
		{Name: "a", Allow: policy.List(id(1), id(2))},
		{Name: "b", Allow: policy.List(id(2))},
		{Name: "c"},
	})
	for _, tt := range []struct {
		peer    identity.Identifier
		service string
		want    bool
	}{
		{id(1), "a", true},
		{id(2), "a", true},
		{id(3), "a", false},
		{id(1), "b", false},
		{id(2), "b", true},
		{id(1), "c", false},
		{id(1), "", false},
		{id(1), "d", false},
		{identity.Identifier{}, "a", false},
	} {
		got := p.Decide(&policy.Request{Peer: policy.Peer{ID: tt.peer}, Action: policy.Open, Service: tt.service})
		if got.Allowed != tt.want || got.Reason == "" {
			t.Errorf("%x… opens %q: %+v, want %v", tt.peer[:1], tt.service, got, tt.want)
		}
	}
	for peer, want := range map[identity.Identifier]bool{id(1): true, id(3): false, {}: false} {
		if got := p.knows(policy.Peer{ID: peer}); got != want {
			t.Errorf("knows %x…: %v, want %v", peer[:1], got, want)
		}
	}
	if NewOutletPolicy(nil).Decide(&policy.Request{Peer: policy.Peer{ID: id(1)}, Action: policy.Open, Service: "a"}).Allowed {
		t.Error("an empty policy allows")
	}
}

// nobodyWaits is an evict that finds no channel without a path.
func nobodyWaits(identity.Identifier) *channel.Channel { return nil }

// At its limit a peer gets the places of its channels that have no path, each
// once, whenever those come to their end.
func TestChannelsTakePlacesOver(t *testing.T) {
	var detached []*channel.Channel
	evict := func(peer identity.Identifier) *channel.Channel {
		if peer != id(1) || len(detached) == 0 {
			return nil
		}
		c := detached[0]
		detached = detached[1:]
		return c
	}
	known := NewOutletPolicy([]config.OutletService{{Name: "a", Allow: policy.List(id(1))}})
	c := newChannels(outletBounds(), known.knows, evict)
	var taken []*reservation
	take := func(times int) (n int) {
		for range times {
			if p, r := c.reserve(policy.Peer{ID: id(1)}); r == nil {
				n++
				taken = append(taken, p)
			}
		}
		return n
	}
	next := func() *reservation {
		p := taken[0]
		taken = taken[1:]
		return p
	}
	if got := take(maxPeerChannels + 1); got != maxPeerChannels {
		t.Fatalf("%d channels taken, want %d", got, maxPeerChannels)
	}
	var dead []*channel.Channel
	for range 3 {
		dead = append(dead, &channel.Channel{})
	}
	detached = slices.Clone(dead)
	if got := take(5); got != 3 {
		t.Errorf("%d places of 3 channels without a path were taken, want 3", got)
	}
	for _, ch := range dead {
		c.release(next(), ch)
		if got := take(1); got != 0 {
			t.Error("a place was given twice")
		}
	}
	c.release(next(), nil)
	if got := take(2); got != 1 {
		t.Errorf("after one was released, %d were taken, want 1", got)
	}
	detached = []*channel.Channel{{}}
	c.drain("going away")
	if _, r := c.reserve(policy.Peer{ID: id(1)}); r == nil || r.code != code.Draining || len(detached) != 1 {
		t.Errorf("while draining: %v, and %d channels are left to be evicted, want 1", r, len(detached))
	}
}

func TestChannelsAreBounded(t *testing.T) {
	known := NewOutletPolicy([]config.OutletService{{Name: "a", Allow: policy.List(id(1), id(2))}})
	c := newChannels(outletBounds(), known.knows, nobodyWaits)
	var first *reservation
	take := func(peer identity.Identifier, times int) (taken int) {
		for range times {
			p, r := c.reserve(policy.Peer{ID: peer})
			if r == nil {
				taken++
				if first == nil {
					first = p
				}
				continue
			}
			if r.code != code.Limit || r.reason == "" {
				t.Errorf("refused with %v, want a limit and a reason", r)
			}
		}
		return taken
	}
	if got := take(id(1), maxPeerChannels+1); got != maxPeerChannels {
		t.Errorf("one peer got %d channels, want %d", got, maxPeerChannels)
	}
	strangers := 0
	for n := range byte(100) {
		strangers += take(id(100+n), maxStrangerChannels+1)
	}
	if strangers != maxStrangers {
		t.Errorf("strangers got %d channels, want %d", strangers, maxStrangers)
	}
	if got := take(id(2), 1); got != 1 {
		t.Error("strangers keep a peer out that is allowed")
	}
	c.release(first, nil)
	if got := take(id(1), 2); got != 1 {
		t.Errorf("after one was released, %d were taken, want 1", got)
	}
	c.drain("going away")
	if _, r := c.reserve(policy.Peer{ID: id(2)}); r == nil || r.code != code.Draining || r.reason != "going away" {
		t.Errorf("while draining: %v", r)
	}

	few := outletBounds()
	few.all = 1
	all := newChannels(few, known.knows, nobodyWaits)
	if _, r := all.reserve(policy.Peer{ID: id(1)}); r != nil {
		t.Error(r)
	}
	if _, r := all.reserve(policy.Peer{ID: id(2)}); r == nil || r.code != code.Limit {
		t.Errorf("beyond the limit of all: %v", r)
	}
}

func TestLabels(t *testing.T) {
	op := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	tests := []struct {
		err  error
		want string
	}{
		{nil, "ok"},
		{&channel.RefusedError{Code: code.NotRegistered}, "not_registered"},
		{fmt.Errorf("hop 1: %w", &channel.RefusedError{Code: code.ExtendDenied}), "extend_denied"},
		{&channel.RefusedError{Code: 60000}, "unknown"},
		{&channel.CloseError{Code: code.Shutdown}, "shutdown"},
		{&channel.HandshakeError{Step: "identity", Err: &channel.IdentityError{}}, "wrong_identity"},
		{&channel.HandshakeError{Step: "version", Err: &channel.VersionError{}}, "version"},
		{&channel.HandshakeError{Step: "message 2", Err: io.ErrUnexpectedEOF}, "handshake"},
		{&channel.HandshakeError{Step: "message 2", Err: os.ErrDeadlineExceeded}, "timeout"},
		{channel.ErrDead, "dead"},
		{fmt.Errorf("x: %w", channel.ErrProtocol), "protocol"},
		{context.DeadlineExceeded, "timeout"},
		{routeErrors{op, &channel.RefusedError{Code: code.Busy}}, "busy"},
		{op, "unreachable"},
	}
	for _, tt := range tests {
		if got := label(tt.err, code.Unreachable); got != tt.want {
			t.Errorf("label(%v): %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestStreamCodes(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	tests := []struct {
		name string
		err  error
		want code.Code
	}{
		{"clean", nil, code.OK},
		{"socket", &pump.Error{Side: pump.B, Op: pump.Read, Err: reset}, code.ClientReset},
		{"refused", &pump.Error{Side: pump.A, Op: pump.Read, Err: &tunnel.RefusedError{Code: code.StreamDenied}}, code.StreamDenied},
		{"reset by the peer", &pump.Error{Side: pump.A, Op: pump.Write, Err: &tunnel.ResetError{Code: code.TargetReset, Remote: true}}, code.TargetReset},
		// The path's error, inside the loss, looks like the socket's.
		{"loss", &pump.Error{Side: pump.B, Op: pump.Read, Err: &tunnel.LossError{Cause: reset}}, code.ChannelLost},
		{"shutdown", errShutdown, code.Shutdown},
		{"other", &pump.Error{Side: pump.A, Op: pump.Write, Err: io.ErrClosedPipe}, code.Aborted},
	}
	for _, tt := range tests {
		got, reason := streamCode(tt.err, code.ClientReset)
		if got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if (reason == "") != (tt.err == nil) && tt.name != "refused" {
			t.Errorf("%s: reason %q", tt.name, reason)
		}
	}
}

// A fakeListener fails as its script says, then accepts.
type fakeListener struct {
	net.Listener
	mu     sync.Mutex
	script []error
}

func (l *fakeListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.script) == 0 {
		return l.Listener.Accept()
	}
	err := l.script[0]
	l.script = l.script[1:]
	return nil, err
}

// Too many open files: the acceptor waits, says so once, and goes on.
func TestAcceptorGoesOnAfterErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, log := newObs(t, "inlet")
	emfile := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	var conns sync.WaitGroup
	served := make(chan struct{})
	a := &acceptor{
		ln: &fakeListener{Listener: ln, script: []error{emfile, emfile, emfile}}, slots: make(chan struct{}, 1), log: o.Log, start: conns.Go,
		handle: func(nc net.Conn, free func()) {
			defer free()
			_ = nc.Close()
			served <- struct{}{}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = a.run(ctx) })
	for range 3 { // more than there are slots
		dialTCP(t, ln.Addr())
		select {
		case <-served:
		case <-time.After(patience):
			t.Fatal("not accepted")
		}
	}
	cancel()
	running.Wait()
	conns.Wait()
	if got := len(log.lines(t, map[string]string{"level": "error"})); got != 1 {
		t.Errorf("%d lines about three errors, want 1", got)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is open after run")
	}
}

// While descriptors are short, a conn comes now and then: errors between them
// are told of once, not each time anew.
func TestAcceptorTellsOfErrorsOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, log := newObs(t, "inlet")
	emfile := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	fake := &fakeListener{Listener: ln}
	var conns, running sync.WaitGroup
	a := &acceptor{ln: fake, slots: make(chan struct{}, 1), log: o.Log, start: conns.Go, handle: func(nc net.Conn, free func()) {
		defer free()
		_ = nc.Close()
	}}
	const times = 5
	ctx, cancel := context.WithCancel(t.Context())
	for range times {
		fake.script = []error{emfile}
		dialTCP(t, ln.Addr())
		nc, err := a.accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
	}
	if loud, low := len(log.lines(t, map[string]string{"level": "error"})), len(log.lines(t, map[string]string{"level": "debug"})); loud != 1 || low != times-1 {
		t.Errorf("%d errors and %d lines for those who look closely, want 1 and %d", loud, low, times-1)
	}
	// One that does not pass says what was done.
	fake.script = []error{net.ErrClosed}
	running.Go(func() {
		if err := a.run(ctx); err == nil || !strings.Contains(err.Error(), "accepting at "+ln.Addr().String()) {
			t.Errorf("run = %v, want what failed and where", err)
		}
	})
	running.Wait()
	cancel()
	conns.Wait()
}

// No slot, no Accept: who is too many waits in the kernel.
func TestAcceptorTakesASlotFirst(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns, running sync.WaitGroup
	hold := make(chan struct{})
	accepted := make(chan struct{}, 10)
	a := &acceptor{ln: ln, slots: make(chan struct{}, 2), log: zap.NewNop(), start: conns.Go, handle: func(nc net.Conn, free func()) {
		defer free()
		accepted <- struct{}{}
		<-hold
		_ = nc.Close()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { _ = a.run(ctx) })
	for range 3 {
		dialTCP(t, ln.Addr())
	}
	<-accepted
	<-accepted
	select {
	case <-accepted:
		t.Error("a third conn was accepted with two slots")
	case <-time.After(100 * time.Millisecond):
	}
	close(hold)
	<-accepted
	cancel()
	running.Wait()
	conns.Wait()
}

func TestDemo(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	var out lockedBuffer
	done := make(chan error, 1)
	watch := testenv.Start(t)
	go func() { done <- Demo(ctx, &out, DemoOptions{}) }()
	eventually(t, "the report", func() bool { return strings.Contains(out.String(), "Ctrl-C ends it") })
	if took := watch.Took(); took > 3*time.Second {
		t.Errorf("the report took %s, want at most 3s", took)
	}
	text := out.String()
	for _, want := range []string{"POST / HTTP/1.1", "culvert-demo-secret-", "00000000  ", "not found", "curl http://127.0.0.1:", "/status"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	_, rest, _ := strings.Cut(text, "curl http://")
	addr, _, _ := strings.Cut(rest, "/")
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, a, "/some/path"); code != 200 || !strings.Contains(body, "GET /some/path HTTP/1.1") {
		t.Errorf("GET through the tunnel: %d %q", code, body)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Demo: %v, want nil after Ctrl-C", err)
		}
	case <-time.After(patience):
		t.Fatal("Demo does not end")
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

// A demo that cannot have its port says so and leaves nothing behind.
func TestDemoPortTaken(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = Demo(t.Context(), io.Discard, DemoOptions{Port: uint16(portOf(taken.Addr()))})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "--port: choose another") || strings.Contains(err.Error(), "services") {
		t.Errorf("Demo: %v, want address already in use, and what to do about --port", err)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A relay's settings have their defaults in pkg/relay and nowhere else, and a
// file cannot let it dial for longer than its callers wait.
func TestRelayDefaults(t *testing.T) {
	var cfg config.Relay
	cfg.SetDefaults()
	if cfg.Limits != (config.Limits{}) || cfg.DialTimeout != 0 {
		t.Errorf("got %+v, %v: want zeros, for which pkg/relay has the value", cfg.Limits, cfg.DialTimeout)
	}
	if config.MaxRelayDial > relay.MaxDial {
		t.Errorf("a file may have a dial time of %v, pkg/relay takes %v", config.MaxRelayDial, relay.MaxDial)
	}
}

// What strangers can cause does not use up the lines for what peers cause, nor
// both together those for this process's own troubles.
func TestStrangersDoNotSilenceTheLog(t *testing.T) {
	key, _ := newIdentity(t)
	o, log := newObs(t, "relay")
	r, err := NewRelay(&config.Relay{Common: config.Common{Identity: key}, Listen: []config.Address{local(0)}}, o)
	if err != nil {
		t.Fatal(err)
	}
	trace := r.trace()
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	refused := func(i int) {
		trace.Refused(relay.Refusal{Remote: at, Request: "connect", Code: code.ConnectDenied, Reason: fmt.Sprint("reason ", i, ";")})
	}
	for i := range 2 * quietKinds {
		trace.HandshakeFailed(at, fmt.Errorf("junk %d", i))
	}
	for i := range 2 * quietKinds {
		refused(i)
	}
	trace.AcceptPaused(syscall.EMFILE, time.Second)
	if n := len(log.lines(t, map[string]string{"level": "warn"})); n != quietKinds {
		t.Errorf("%d refusals are told, want %d", n, quietKinds)
	}
	if n := len(log.lines(t, map[string]string{"level": "error"})); n != 1 {
		t.Errorf("%d of the process's own troubles are told, want 1", n)
	}
}

// A relay that sends an outlet conns on which nobody speaks takes no more than
// its part of the handshakes: callers by other ways still have theirs.
func TestOneRelayTakesItsPart(t *testing.T) {
	key, id := newIdentity(t)
	o, _ := newObs(t, "outlet")
	way := func(port uint16) route.Route { return route.Route{{Host: "127.0.0.1", Port: port, Identifier: id}} }
	out, err := NewOutlet(&config.Outlet{
		Common: config.Common{Identity: key}, Relays: []route.Route{way(1), way(2)},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id)}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for range 2 * maxHandshakes {
		nc, far := net.Pipe()
		defer far.Close()
		running.Go(func() { out.agents.listed[0].handle(ctx, nc, "") })
	}
	eventually(t, "the first relay has its part", func() bool { return len(out.slots) >= maxHandshakes/2 })
	nc, far := net.Pipe()
	defer far.Close()
	running.Go(func() { out.agents.listed[1].handle(ctx, nc, "") })
	_ = far.SetDeadline(time.Now().Add(patience))     // one that gets no turn is closed long before
	if _, err := far.Write([]byte("C")); err != nil { // which only a handshake reads
		t.Errorf("the second relay's caller: %v", err)
	}
}
