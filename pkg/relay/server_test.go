package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

func TestConfig(t *testing.T) {
	_, err := NewServer(Config{Limits: Limits{Conns: -1}, Timing: Timing{Ping: -1}})
	for _, want := range []string{"Local is missing", "Limits.Conns is negative", "Timing.Ping is negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it: all faults at once", err, want)
		}
	}
	if _, err := NewAgent(AgentConfig{}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("an empty AgentConfig: got %v, want three faults", err)
	}
}

// A relay without authorizers denies everything, and an authorizer's words
// reach the caller.
func TestDenied(t *testing.T) {
	denied := errors.New("identifier is not in the list")
	for _, tc := range []struct {
		name   string
		config func(*Config)
		words  [3]string // of register, connect, extend
	}{
		{"by default", func(c *Config) { c.Register, c.Connect, c.Extend = nil, nil, nil }, [3]string{
			"relay lets nobody offer an outlet", "relay lets nobody connect to an outlet", "relay carries nobody on",
		}},
		{"by func", func(c *Config) {
			c.Register = func(channel.Peer) error { return denied }
			c.Connect = func(channel.Peer) error { return denied }
			c.Extend = func(_ channel.Peer, address string) error { return fmt.Errorf("%s: %w", address, denied) }
		}, [3]string{"register_denied: identifier is not", "connect_denied: identifier is not", "extend_denied: 127.0.0.1:1: identifier is not"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			relay := startRelay(t, tc.config)
			o := newByHand(t, relay)
			next := route.Hop{Host: "127.0.0.1", Port: 1, Identifier: o.d.Local.Identifier()}
			_, _, err := o.ask(t, request{Kind: kindRegister})
			wantRefusal(t, err, code.RegisterDenied, tc.words[0])
			_, _, err = o.ask(t, request{Kind: kindPark})
			wantRefusal(t, err, code.RegisterDenied, tc.words[0])
			err = noPath(t, o.d, route.Route{relay.hop(t)}, newLocal(t).Identifier(), nil)
			wantRefusal(t, err, code.ConnectDenied, tc.words[1])
			err = noPath(t, o.d, route.Route{relay.hop(t), next}, newLocal(t).Identifier(), nil)
			wantRefusal(t, err, code.ExtendDenied, tc.words[2])
			if !strings.Contains(err.Error(), "hop 1 of 2") {
				t.Errorf("got %q, want the relay that denies named", err)
			}
			st := relay.Status()
			for c, want := range map[code.Code]uint64{code.RegisterDenied: 2, code.ConnectDenied: 1, code.ExtendDenied: 1} {
				if st.Refusals[c] != want {
					t.Errorf("%d refusals with %s counted, want %d", st.Refusals[c], c, want)
				}
			}
		})
	}
}

// The authorizers see whom the handshake has proven.
func TestAuthorizerSeesPeer(t *testing.T) {
	peers := make(chan channel.Peer, 1)
	relay := startRelay(t, func(c *Config) {
		c.Connect = func(p channel.Peer) error { peers <- p; return errors.New("no") }
	})
	me := newLocal(t)
	noPath(t, &Dialer{Local: me}, route.Route{relay.hop(t)}, newLocal(t).Identifier(), nil)
	if p := <-peers; p.Identifier != me.Identifier() || p.Instance != me.Instance() {
		t.Errorf("got %s %s, want %s %s", p.Identifier, p.Instance, me.Identifier(), me.Instance())
	}
}

func TestRefusals(t *testing.T) {
	relay := startRelay(t, func(c *Config) {
		c.Limits.Registrations = 2
		c.Limits.RegistrationsPerIdentity = 1
		c.Timing.Dial = 100 * time.Millisecond
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "192.0.2.1:1" { // a black hole
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	id := newIdentity(t)
	o := newByHand(t, relay)
	o.d.Local = localOf(t, id)
	_, _, err := o.ask(t, request{Kind: kindPark})
	wantRefusal(t, err, code.NotRegistered, "this instance is not registered here")
	o.register(t)

	d := &Dialer{Local: newLocal(t)}
	r := route.Route{relay.hop(t)}
	other := newLocal(t)
	err = noPath(t, d, r, other.Identifier(), nil)
	wantRefusal(t, err, code.NotRegistered, "outlet "+other.Identifier().String()+" is not registered here")
	instance := other.Instance()
	err = noPath(t, d, r, id.Identifier(), &instance)
	wantRefusal(t, err, code.Gone, "instance "+instance.String()+" of outlet")

	hole := route.Hop{Host: "192.0.2.1", Port: 1, Identifier: other.Identifier()}
	err = noPath(t, d, route.Route{relay.hop(t), hole}, other.Identifier(), nil)
	wantRefusal(t, err, code.Unreachable, "deadline exceeded")

	second := newByHand(t, relay)
	second.d.Local = localOf(t, id)
	_, _, err = second.ask(t, request{Kind: kindRegister})
	wantRefusal(t, err, code.Limit, "1 instances of your identity")
	newByHand(t, relay).register(t)
	_, _, err = newByHand(t, relay).ask(t, request{Kind: kindRegister})
	wantRefusal(t, err, code.Limit, "2 registrations")

	for range SpareConns + sparesOver {
		o.park(t)
	}
	_, _, err = o.ask(t, request{Kind: kindPark})
	wantRefusal(t, err, code.Limit, "4 conns are parked, which is enough")
}

func TestConnLimits(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit Limits
		words string
	}{
		{"one identity", Limits{ConnsPerIdentity: 1}, "1 conns of your identity"},
		{"all", Limits{Conns: 1}, "1 conns, which is its limit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			relay := startRelay(t, func(c *Config) { c.Limits = tc.limit })
			o := newByHand(t, relay)
			control := o.register(t)
			_, _, err := o.ask(t, request{Kind: kindPark})
			wantRefusal(t, err, code.Limit, tc.words)
			_ = control.Close()
			eventually(t, "the place is free again", func() bool { return relay.Status().Conns == 0 })
			o.register(t)
		})
	}
}

// What is no request is refused in words.
func TestBadRequest(t *testing.T) {
	relay := startRelay(t)
	for name, b := range map[string][]byte{"empty": {}, "nonsense": []byte("GET / HTTP/1.0"), "kind 9": {0xa1, 0x01, 0x09}} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", relay.addr)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := channel.Initiate(context.Background(), nc, newLocal(t), relay.local.Identifier(), channel.PurposeHop, b, channel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = readMessage(conn)
			wantRefusal(t, err, code.Protocol, "request")
		})
	}
	// A handshake for a channel is not for a relay.
	nc, err := net.Dial("tcp", relay.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Initiate(context.Background(), nc, newLocal(t), relay.local.Identifier(), channel.PurposeChannel, nil, channel.Options{}); err == nil {
		t.Error("a handshake for a channel: got no error")
	}
	relay.log.await(t, 1, "handshake failed")
}

// A caller that talks before the answer is refused: with the request, while it
// is held, or while the next hop is dialled.
func TestTalksTooEarly(t *testing.T) {
	dialling := make(chan struct{}, 1)
	relay := startRelay(t, func(c *Config) {
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialling <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	outlet := newByHand(t, relay)
	outlet.register(t)
	for _, tc := range []struct {
		name string
		req  request
		say  string
		when func()
	}{
		{"at once", connectRequest(outlet.d.Local.Identifier(), nil), "are you there?", func() {}},
		{"while held", connectRequest(outlet.d.Local.Identifier(), nil), "?", func() {
			eventually(t, "the caller is held", func() bool { return relay.Status().Registrations[0].Waiting == 1 })
		}},
		{"while dialled for", extendRequest("127.0.0.1:1", [32]byte{}, 0), "?", func() { <-dialling }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", relay.addr)
			if err != nil {
				t.Fatal(err)
			}
			b, err := tc.req.encode()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := channel.Initiate(context.Background(), nc, newLocal(t), relay.local.Identifier(), channel.PurposeHop, b, channel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			tc.when()
			if _, err := conn.Write([]byte(tc.say)); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			_, err = readMessage(conn)
			wantRefusal(t, err, code.Protocol, "bytes came before the answer")
			select {
			case <-dialling: // of "at once", if it got that far
			default:
			}
		})
	}
	if n := relay.Status().Refusals[code.Protocol]; n != 3 {
		t.Errorf("%d refusals counted, want 3", n)
	}
}

// Part of a record is talking, too.
func TestTalksHalfTooEarly(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	outlet.register(t)
	_, parked := outlet.park(t)
	nc, err := net.Dial("tcp", relay.addr)
	if err != nil {
		t.Fatal(err)
	}
	b, err := connectRequest(outlet.d.Local.Identifier(), nil).encode()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := channel.Initiate(context.Background(), nc, newLocal(t), relay.local.Identifier(), channel.PurposeHop, b, channel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	expect(t, parked, msgGo)
	if _, err := nc.Write([]byte{0}); err != nil { // half a record's length
		t.Fatal(err)
	}
	// The byte is there before the relay looks: it answers nothing until going.
	sock.WaitSent(nc, patience)
	if err := writeMessage(parked, message{Kind: msgGoing}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, err = readMessage(conn)
	wantRefusal(t, err, code.Protocol, "bytes came before the answer")
}

// A caller that leaves while it is held frees its place, and takes no spare
// conn with it.
func TestCallerLeaves(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	outlet.register(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := (&Dialer{Local: newLocal(t)}).Path(ctx, route.Route{relay.hop(t)}, outlet.d.Local.Identifier(), nil)
		done <- err
	}()
	eventually(t, "the caller is held", func() bool { return relay.Status().Registrations[0].Waiting == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	relay.log.await(t, 1, "abandoned connect")
	eventually(t, "its place is free", func() bool { return relay.Status().Registrations[0].Waiting == 0 })
	outlet.park(t)
	if got := relay.Status(); got.Registrations[0].Spares != 1 || len(got.Joins) != 0 {
		t.Errorf("got %+v, want one spare and no join", got)
	}
}

// A flakyListener fails a few times and then accepts.
type flakyListener struct {
	net.Listener
	errs []error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

func TestAcceptPauses(t *testing.T) {
	ln := &flakyListener{listen(t, "127.0.0.1:0"), []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS}}
	relay := startRelayOn(t, ln, newLocal(t))
	newByHand(t, relay).register(t)
	for _, want := range []string{"accept paused 5ms", "accept paused 10ms", "accept paused 20ms", "accept paused 40ms"} {
		if relay.log.count(want) != 1 {
			t.Errorf("got\n%s\nwant %q", relay.log, want)
		}
	}
}

func TestAcceptFails(t *testing.T) {
	s, err := NewServer(Config{Local: newLocal(t)})
	if err != nil {
		t.Fatal(err)
	}
	ln := &flakyListener{listen(t, "127.0.0.1:0"), []error{syscall.EBADF}}
	if err := s.Serve(context.Background(), ln); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v, want EBADF: it will not get better", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// Silent callers fill the handshakes' slots, no more, and only for a time.
func TestHandshakeSlots(t *testing.T) {
	relay := startRelay(t, func(c *Config) {
		c.Limits.Handshakes = 2
		c.Channel.Timeout = 200 * time.Millisecond
	})
	for range 6 {
		nc, err := net.Dial("tcp", relay.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	eventually(t, "both slots are taken", func() bool { return relay.Status().Handshakes == 2 })
	newByHand(t, relay).register(t) // the seventh in the row
	if got := relay.log.count("handshake failed"); got < 5 {
		t.Errorf("%d of 6 silent callers had been given up when the seventh was served, want 5 at least", got)
	}
}

func TestHandshakeRate(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Limits.HandshakesPerSecond = 10 })
	start := time.Now()
	for range 14 { // ten at once; one more is taken by the wait in Accept
		nc, err := net.Dial("tcp", relay.addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
	relay.log.await(t, 14, "handshake failed")
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("14 handshakes took %v at 10 a second, want at least 300ms", took)
	}
}

// Serve's end ends everything, and says so to those who can hear it.
func TestServeEnds(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	_, parked := outlet.park(t)
	held := newByHand(t, relay)
	held.register(t)
	hold := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, held.d.Local.Identifier())
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	join := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	silent, err := net.Dial("tcp", relay.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	eventually(t, "the caller is held", func() bool {
		waiting := 0
		for _, r := range relay.Status().Registrations {
			waiting += r.Waiting
		}
		return waiting == 1
	})
	start := time.Now()
	relay.stop()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Serve took %v to end", took)
	}
	wantRefusal(t, (<-hold).err, code.Shutdown, "relay is stopping")
	var closed *channel.CloseError
	for name, conn := range map[string]*channel.Conn{"control conn": control, "parked conn": parked} {
		var err error
		for err == nil {
			_, err = readMessage(conn)
		}
		if !errors.As(err, &closed) || closed.Code != code.Shutdown {
			t.Errorf("%s: got %v, want a close with %s", name, err, code.Shutdown)
		}
	}
	if _, err := join.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the join: got %v, want ECONNRESET", err)
	}
	if st := relay.Status(); st.Conns != 0 || st.Handshakes != 0 || len(st.Registrations) != 0 || len(st.Joins) != 0 {
		t.Errorf("after the end: %+v", st)
	}
	if len(relay.perIdentity) != 0 {
		t.Errorf("%d identities are still counted", len(relay.perIdentity))
	}
}

// A leg that is lost takes the other with it at once.
func TestLossPassesOn(t *testing.T) {
	relay := startRelay(t)
	conns := make(chan net.Conn, 1)
	outlet := newLocal(t)
	agent := startAgent(t, outlet, route.Route{relay.hop(t)}, func(c *AgentConfig) {
		c.Handle = func(_ context.Context, nc net.Conn) { conns <- nc }
	})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.Identifier(), nil)
	far := (<-conns).(*net.TCPConn)
	_ = far.SetLinger(0)
	_ = far.Close()
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the caller read %v, want ECONNRESET", err)
	}
	relay.log.await(t, 1, "join ended connect to target 0 to caller 0 reading side b")
}

func TestJoinLimits(t *testing.T) {
	relay := startRelay(t, func(c *Config) {
		c.Timing.Idle = 500 * time.Millisecond
		c.Limits.BytesPerSecond = 200_000
	})
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	start := time.Now()
	go func() { _, _ = nc.Write(make([]byte, 60_000)) }()
	if _, err := io.ReadFull(nc, make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("60 kB took %v at 200 kB a second, want at least 200ms", took)
	}
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an idle join: got %v, want ECONNRESET", err)
	}
	relay.log.await(t, 1, "no byte in either direction")
}

// Who may not any more is cut off when the lists have changed.
func TestRecheck(t *testing.T) {
	var noRegister, noConnect, noExtend atomic.Bool
	check := func(b *atomic.Bool) error {
		if b.Load() {
			return errors.New("not any more")
		}
		return nil
	}
	relay := startRelay(t, func(c *Config) {
		c.Register = func(channel.Peer) error { return check(&noRegister) }
		c.Connect = func(channel.Peer) error { return check(&noConnect) }
		c.Extend = func(channel.Peer, string) error { return check(&noExtend) }
	})
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	outlet := agent.local.Identifier()
	d := &Dialer{Local: newLocal(t)}
	connected := path(t, d, route.Route{relay.hop(t)}, outlet, nil)
	extended := path(t, d, route.Route{relay.hop(t), relay.hop(t)}, outlet, nil)
	relay.Recheck()
	carries(t, connected, "still here")
	carries(t, extended, "still here")
	noExtend.Store(true)
	relay.Recheck()
	relay.log.await(t, 1, "extend_denied: not any more")
	if _, err := extended.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the extended path: got %v, want ECONNRESET", err)
	}
	carries(t, connected, "still here")
	noConnect.Store(true)
	relay.Recheck()
	if _, err := connected.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the joined path: got %v, want ECONNRESET", err)
	}
	noRegister.Store(true)
	relay.Recheck()
	relay.log.await(t, 1, "registration ended register_denied")
	agent.log.await(t, 1, "peer closed: register_denied: not any more")
}

// Draining: nobody new, the registered are told, joins go one by one.
func TestDrain(t *testing.T) {
	relay := startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	outlet := agent.local.Identifier()
	d := &Dialer{Local: newLocal(t)}
	r := route.Route{relay.hop(t)}
	const joins, over = 8, 800 * time.Millisecond
	var ends sync.WaitGroup
	var mu sync.Mutex
	var ended []time.Time
	for range joins {
		nc := path(t, d, r, outlet, nil)
		carries(t, nc, "x")
		ends.Go(func() {
			_, err := nc.Read(make([]byte, 1))
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a join ended with %v, want ECONNRESET", err)
			}
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, time.Now())
		})
	}
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- relay.Drain(context.Background(), over) }()
	agent.log.await(t, 1, "draining at")
	if st := agent.Status(); !st[0].Draining || !st[0].Registered {
		t.Errorf("the outlet's status: %+v, want registered and draining", st)
	}
	for name, r := range map[string]route.Route{"connect": r, "extend": {relay.hop(t), relay.hop(t)}} {
		err := noPath(t, d, r, outlet, nil)
		wantRefusal(t, err, code.Draining, "relay refuses to "+name+": draining: relay is going away")
	}
	o := newByHand(t, relay)
	for _, kind := range []requestKind{kindRegister, kindPark} {
		_, _, err := o.ask(t, request{Kind: kind})
		wantRefusal(t, err, code.Draining, "")
	}
	if err := <-done; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if took := time.Since(start); took < over || took > over+3*time.Second {
		t.Errorf("draining took %v, want %v", took, over)
	}
	ends.Wait()
	mu.Lock()
	defer mu.Unlock()
	early := 0
	for _, at := range ended {
		if at.Before(start.Add(over * 3 / 4)) {
			early++
		}
	}
	if early < joins/4 || early == joins {
		t.Errorf("joins ended at %v, want them spread over %v", ended, over)
	}
	if relay.log.count("relay is draining") != joins { // all of them told before Drain returned
		t.Errorf("got\n%s\nwant %d joins ended by draining", relay.log, joins)
	}
	if st := relay.Status(); !st.Draining || len(st.Joins) != 0 || len(st.Registrations) != 1 {
		t.Errorf("after draining: %+v", st)
	}
}

// The end of Drain's time closes the rest at once; joins that end by
// themselves are not waited for.
func TestDrainEnds(t *testing.T) {
	relay := startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	d := &Dialer{Local: newLocal(t)}
	nc := path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := relay.Drain(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the join: got %v, want ECONNRESET", err)
	}
	if err := relay.Drain(context.Background(), time.Hour); err != nil {
		t.Errorf("with no join left: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// A status names who is here, and what has passed.
func TestStatus(t *testing.T) {
	relay := startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	outlet, caller := agent.local, newLocal(t)
	nc := path(t, &Dialer{Local: caller}, route.Route{relay.hop(t)}, outlet.Identifier(), nil)
	carries(t, nc, "12345")
	eventually(t, "two spares again", func() bool { return relay.Status().Registrations[0].Spares == SpareConns })
	st := relay.Status()
	r, j := st.Registrations[0], st.Joins[0]
	if r.Identifier != outlet.Identifier() || r.Instance != outlet.Instance().String() || r.Waiting != 0 || r.Draining || r.Remote == "" {
		t.Errorf("got registration %+v", r)
	}
	if j.Kind != "connect" || j.Caller != caller.Identifier() || j.CallerInstance != caller.Instance().String() ||
		j.Target != outlet.Identifier().String() || j.TargetInstance != outlet.Instance().String() || j.ToTarget != 5 || j.ToCaller != 5 {
		t.Errorf("got join %+v", j)
	}
	if time.Since(r.Since) > time.Minute || time.Since(j.Since) > time.Minute {
		t.Errorf("since %v and %v", r.Since, j.Since)
	}
	if st.Conns != 1+SpareConns+2 {
		t.Errorf("%d conns, want the control conn, two spares and two legs", st.Conns)
	}
	eventually(t, "the agent knows of both", func() bool { return agent.Status()[0].Spares == SpareConns })
	as := agent.Status()
	if len(as) != 1 || !as[0].Registered || as[0].Spares != SpareConns || as[0].Address != relay.addr || as[0].Err != nil {
		t.Errorf("got agent status %+v", as)
	}
}
