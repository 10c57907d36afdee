package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
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
			c.Connect = func(channel.Peer, identity.Identifier) error { return denied }
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

// What a DeniedError keeps from the caller is for the trace alone, also when an
// outlet that is here is asked about again.
func TestDeniedTellsLess(t *testing.T) {
	denied := &DeniedError{Told: "you may not", Why: "the policy says a secret"}
	var deny atomic.Bool
	refusals := make(chan Refusal, 1)
	ended := make(chan error, 1)
	relay := startRelay(t, func(c *Config) {
		c.Connect = func(channel.Peer, identity.Identifier) error { return fmt.Errorf("asking: %w", denied) }
		c.Register = func(channel.Peer) error {
			if deny.Load() {
				return denied
			}
			return nil
		}
		c.Trace.Refused = func(r Refusal) { refusals <- r }
		c.Trace.RegistrationEnded = func(_ RegistrationStatus, _ code.Code, err error) { ended <- err }
	})
	err := noPath(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, newLocal(t).Identifier(), nil)
	wantRefusal(t, err, code.ConnectDenied, "you may not")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the caller was told %q", err)
	}
	if r := <-refusals; r.Reason != denied.Told || r.Why != denied.Why {
		t.Errorf("traced %q and %q, want both parts", r.Reason, r.Why)
	}

	conn := newByHand(t, relay).register(t)
	deny.Store(true)
	relay.Recheck()
	_, err = io.ReadAll(conn)
	var closed *channel.CloseError
	if !errors.As(err, &closed) || closed.Code != code.RegisterDenied || closed.Reason != denied.Told {
		t.Errorf("the outlet was told %v, want register_denied and %q", err, denied.Told)
	}
	if err := <-ended; !errors.Is(err, denied) {
		t.Errorf("traced %v, want both parts", err)
	}

	held := denial(code.ConnectDenied, denied) // of a caller that was held meanwhile
	var d *declinedError
	if !errors.As(held, &d) || d.reason != denied.Told || d.why != denied.Why {
		t.Errorf("got %+v, want both parts, apart", held)
	}
}

// The authorizers see whom the handshake has proven.
func TestAuthorizerSeesPeer(t *testing.T) {
	peers := make(chan channel.Peer, 1)
	relay := startRelay(t, func(c *Config) {
		c.Connect = func(p channel.Peer, _ identity.Identifier) error { peers <- p; return errors.New("no") }
	})
	me := newLocal(t)
	noPath(t, &Dialer{Local: me}, route.Route{relay.hop(t)}, newLocal(t).Identifier(), nil)
	if p := <-peers; p.Identifier != me.Identifier() || p.Instance != me.Instance() {
		t.Errorf("got %s %s, want %s %s", p.Identifier, p.Instance, me.Identifier(), me.Instance())
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel() // it waits for Dial
	relay := startRelay(t, func(c *Config) {
		c.Limits.Registrations = 2
		c.Limits.RegistrationsPerIdentity = 1
		c.Timing.Dial = 3 * time.Second
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
		_, err := (&Dialer{Local: newLocal(t)}).Path(ctx, route.Route{relay.hop(t)}, outlet.d.Local.Identifier(), nil, 0)
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
	ln := &flakyListener{listen(t, "127.0.0.1:0"), []error{syscall.EMFILE, syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN}}
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
