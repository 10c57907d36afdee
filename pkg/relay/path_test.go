package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// A tap keeps a copy of all bytes that pass conns dialled through it.
type tap struct {
	mu  sync.Mutex
	all bytes.Buffer
}

type tappedConn struct {
	net.Conn
	tap *tap
}

func (t *tap) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &tappedConn{nc, t}, nil
}

func (t *tap) keep(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Write(b)
}

func (t *tap) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.all.Bytes())
}

func (c *tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.keep(b[:n])
	return n, err
}

func (c *tappedConn) Write(b []byte) (int, error) {
	c.tap.keep(b)
	return c.Conn.Write(b)
}

func (c *tappedConn) NetConn() net.Conn { return c.Conn }

// answering is an outlet's handler that speaks the channel's handshake and
// sends back what it gets.
func answering(local *channel.Local) func(context.Context, net.Conn) {
	return func(ctx context.Context, nc net.Conn) {
		in, err := channel.Respond(ctx, nc, local, channel.PurposeChannel, channel.Options{})
		if err != nil {
			return
		}
		echo(ctx, in.Accept())
	}
}

// Routes of one, two and three relays, and with the outlet itself as last hop,
// carry a channel; what passes the legs holds nothing that the ends said.
func TestRoutes(t *testing.T) {
	a, b, c := startRelay(t), startRelay(t), startRelay(t)
	outlet, inlet := newLocal(t), newLocal(t)

	ln := listen(t, "127.0.0.1:0")
	var direct sync.WaitGroup
	direct.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			direct.Go(func() { answering(outlet)(context.Background(), nc) })
		}
	})
	t.Cleanup(direct.Wait)
	t.Cleanup(func() { ln.Close() })
	self, err := route.ParseHop("tcp://" + ln.Addr().String() + "/" + outlet.Identifier().String())
	if err != nil {
		t.Fatal(err)
	}

	for _, tc := range []struct {
		name     string
		register route.Route // where the outlet registers; nil if it does not
		route    route.Route
	}{
		{"no relay", nil, route.Route{self}},
		{"relay, outlet", nil, route.Route{a.hop(t), self}},
		{"one relay", route.Route{a.hop(t)}, route.Route{a.hop(t)}},
		{"two relays", route.Route{b.hop(t)}, route.Route{a.hop(t), b.hop(t)}},
		{"three relays", route.Route{c.hop(t)}, route.Route{a.hop(t), b.hop(t), c.hop(t)}},
		{"outlet behind two", route.Route{b.hop(t), a.hop(t)}, route.Route{c.hop(t), a.hop(t)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taps := []*tap{{}, {}}
			if tc.register != nil {
				agent := startAgent(t, outlet, tc.register, func(c *AgentConfig) {
					c.Handle = handled(answering(outlet))
					c.Dialer.Dial = taps[0].dial
				})
				defer agent.stop()
				agent.log.await(t, 1, "registered at")
			}
			nc := path(t, &Dialer{Local: inlet, Dial: taps[1].dial}, tc.route, outlet.Identifier(), nil)
			conn, err := channel.Initiate(context.Background(), nc, inlet, outlet.Identifier(), channel.PurposeChannel, nil, channel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			secret := strings.Repeat("the quick brown fox ", 5000)
			carries(t, conn, secret)
			if err := conn.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			for i, tap := range taps {
				seen := tap.bytes()
				if bytes.Contains(seen, []byte("quick brown")) {
					t.Errorf("leg %d carries plaintext", i)
				}
				if i == 1 && len(seen) < 2*len(secret) {
					t.Errorf("leg %d: %d bytes seen, which cannot be all", i, len(seen))
				}
			}
		})
	}
}

// Errors name the hop that failed, with its URL.
func TestPathErrors(t *testing.T) {
	a, b := startRelay(t), startRelay(t)
	d := &Dialer{Local: newLocal(t)}
	outlet := newLocal(t).Identifier()
	dead := listen(t, "127.0.0.1:0")
	dead.Close()
	gone := b.hop(t)
	gone.Port = uint16(dead.Addr().(*net.TCPAddr).Port)
	wrong := b.hop(t)
	wrong.Identifier = newLocal(t).Identifier()
	unknown := b.hop(t, "no-such-host.invalid")

	for _, tc := range []struct {
		name  string
		route route.Route
		want  []string
		code  code.Code // OK: no refusal
	}{
		{
			"outlet not registered",
			route.Route{a.hop(t), b.hop(t)},
			[]string{fmt.Sprintf("hop 2 of 2 (%s): relay refuses to connect: not_registered: outlet %s is not registered here", b.hop(t), outlet)},
			code.NotRegistered,
		},
		{
			"first hop dead",
			route.Route{gone, b.hop(t)},
			[]string{fmt.Sprintf("hop 1 of 2 (%s): dial tcp", gone), "connection refused"},
			code.OK,
		},
		{
			"second hop dead",
			route.Route{a.hop(t), gone},
			[]string{fmt.Sprintf("hop 2 of 2 (%s): hop 1 cannot reach it: unreachable: dial tcp", gone), "connection refused"},
			code.Unreachable,
		},
		{
			"second hop unknown",
			route.Route{a.hop(t), unknown},
			[]string{fmt.Sprintf("hop 2 of 2 (%s): hop 1 cannot reach it: no_address: looking up no-such-host.invalid", unknown)},
			code.NoAddress,
		},
		{
			"first hop unknown",
			route.Route{unknown},
			[]string{fmt.Sprintf("hop 1 of 1 (%s): looking up no-such-host.invalid", unknown)},
			code.OK,
		},
		{
			"second hop proves another identity",
			route.Route{a.hop(t), wrong},
			[]string{fmt.Sprintf("hop 2 of 2 (%s): ", wrong), "peer proves to be " + b.hop(t).Identifier.String()},
			code.OK,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := noPath(t, d, tc.route, outlet, nil)
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			var pe *PathError
			if !errors.As(err, &pe) {
				t.Errorf("got a %T, want a *PathError", err)
			}
			if tc.code != code.OK {
				wantRefusal(t, err, tc.code, "")
			}
		})
	}
	if _, err := d.Path(context.Background(), nil, outlet, nil, 0); err == nil {
		t.Error("an empty route: got no error")
	}
}

// A path's context ends every step of it.
func TestPathContext(t *testing.T) {
	silent := listen(t, "127.0.0.1:0") // accepts, in the kernel, and says nothing
	defer silent.Close()
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	outlet.register(t)
	mute := relay.hop(t)
	mute.Port = uint16(silent.Addr().(*net.TCPAddr).Port)
	for _, tc := range []struct {
		name  string
		route route.Route
	}{
		{"in the handshake", route.Route{mute}},
		{"before the answer", route.Route{relay.hop(t)}},
		{"in the second handshake", route.Route{relay.hop(t), mute}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			d := &Dialer{Local: newLocal(t), HandshakeTimeout: time.Hour, AnswerTimeout: time.Hour}
			_, err := d.Path(ctx, tc.route, outlet.d.Local.Identifier(), nil, 0)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A host with two addresses of which one is dead, refuses, or swallows what
// comes, is reached by the other, whatever the order.
func TestTwoAddresses(t *testing.T) {
	relay := startRelayOn(t, listen(t, "127.0.0.2:0"), newLocal(t))
	var dns hosts
	dns.set("relay", "127.0.0.3", "127.0.0.2")
	first := relay.hop(t, "relay")
	for kind, dead := range map[string]string{"refuses": "127.0.0.3", "swallows": "127.0.0.4", "swallows handshakes": "127.0.0.5"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // they wait for the time that a dial or a handshake may take
			host := "relay-at-" + dead
			dns.set(host, dead, "127.0.0.2")
			if kind == "swallows handshakes" {
				ln := listen(t, fmt.Sprintf("%s:%d", dead, first.Port))
				defer ln.Close()
			}
			for _, want := range [][]string{{dead, "127.0.0.2"}, {"127.0.0.2"}} {
				tryTwoAddresses(t, relay, &dns, host, kind == "swallows", want)
			}
		})
	}
	// The next hop's addresses are tried alike, by index.
	t.Run("second hop", func(t *testing.T) {
		near := startRelay(t, func(c *Config) { c.LookupHost = dns.lookup })
		for range 6 {
			outlet := newLocal(t)
			agent := startAgent(t, outlet, route.Route{relay.hop(t)})
			agent.log.await(t, 1, "registered at")
			nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{near.hop(t), first}, outlet.Identifier(), nil)
			carries(t, nc, "hello")
			agent.stop()
		}
	})
	t.Run("all dead", func(t *testing.T) {
		dns.set("dead", "127.0.0.3", "127.0.0.4")
		err := noPath(t, &Dialer{Local: newLocal(t), LookupHost: dns.lookup}, route.Route{relay.hop(t, "dead")}, newLocal(t).Identifier(), nil)
		for _, want := range []string{"at 127.0.0.3:", "at 127.0.0.4:"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want %q in it", err, want)
			}
		}
	})
}

// tryTwoAddresses reaches an outlet of which the IPs wanted are tried, in that order.
// The first of them may be one where dials do not come to an end.
func tryTwoAddresses(t *testing.T, relay *testRelay, dns *hosts, host string, swallows bool, want []string) {
	t.Helper()
	r := route.Route{relay.hop(t, host)}
	outlet := newByHand(t, relay)
	for first := ""; !strings.HasPrefix(first, want[0]+":"); {
		outlet = newByHand(t, relay)
		order, err := resolve(t.Context(), dns.lookup, host, r[0].Port, outlet.d.Local.Identifier())
		if err != nil {
			t.Fatal(err)
		}
		first = order[0]
	}
	outlet.register(t)
	_, parked := outlet.park(t)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		echo(context.Background(), going(t, parked))
	}()
	var dialled []string
	d := &Dialer{Local: newLocal(t), LookupHost: dns.lookup, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		ip, _, _ := strings.Cut(address, ":")
		dialled = append(dialled, ip)
		if swallows && len(dialled) < len(want) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	nc := path(t, d, r, outlet.d.Local.Identifier(), nil)
	carries(t, nc, "hello")
	nc.Close()
	<-answered
	if !slices.Equal(dialled, want) {
		t.Errorf("dialled %v, want %v", dialled, want)
	}
}

// All addresses of a host are used in the order that the outlet's identifier
// gives, each once, and not more than the bound.
func TestResolve(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("::ffff:10.0.%d.1", i))
	}
	var dns hosts
	dns.set("many", many...)
	dns.set("none")
	ctx := context.Background()
	got, err := resolve(ctx, dns.lookup, "many", 4000, [32]byte{1})
	if err != nil || len(got) != maxAddresses {
		t.Fatalf("got %d addresses, %v; want %d", len(got), err, maxAddresses)
	}
	if again, _ := resolve(ctx, dns.lookup, "many", 4000, [32]byte{1}); !slices.Equal(got, again) {
		t.Error("two look-ups gave two orders")
	}
	if other, _ := resolve(ctx, dns.lookup, "many", 4000, [32]byte{2}); slices.Equal(got, other) {
		t.Error("two keys gave the same order")
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != maxAddresses {
		t.Error("an address came twice")
	}
	if got, err := resolve(ctx, dns.lookup, "none", 1, [32]byte{}); err == nil {
		t.Errorf("a host without addresses: got %v", got)
	}
	if got, err := resolve(ctx, dns.lookup, "2001:db8::1", 1, [32]byte{}); err != nil || !slices.Equal(got, []string{"[2001:db8::1]:1"}) {
		t.Errorf("a literal address: got %v, %v", got, err)
	}
	// The order is that of SHA-256 over (key, address), for other
	// implementations to find the same one.
	want := []string{"127.0.0.1:4000", "127.0.0.3:4000", "127.0.0.2:4000"}
	dns.set("three", "127.0.0.1", "127.0.0.2", "127.0.0.3")
	if got, err := resolve(ctx, dns.lookup, "three", 4000, [32]byte{31: 1}); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// An outlet that is registered at only one of a hop's replicas is found there,
// and one replica's refusal does not end the hop.
func TestReplicas(t *testing.T) {
	id := newIdentity(t)
	one := startRelayOn(t, listen(t, "127.0.0.1:0"), localOf(t, id))
	port := one.hop(t).Port
	two := startRelayOn(t, listen(t, fmt.Sprintf("127.0.0.2:%d", port)), localOf(t, id))
	near := startRelay(t)
	var dns hosts
	dns.set("relay", "127.0.0.1", "127.0.0.2")
	near.cfg.LookupHost = dns.lookup
	hop := one.hop(t, "relay")
	d := &Dialer{Local: newLocal(t), LookupHost: dns.lookup}
	wrong := func() bool {
		return one.log.count("not_registered") > 0 && two.log.count("not_registered") > 0
	}
	for i := 0; i < 60 && !wrong(); i++ {
		home := []*testRelay{one, two}[i%2]
		outlet := newLocal(t)
		agent := startAgent(t, outlet, route.Route{home.hop(t)})
		agent.log.await(t, 1, "registered at")
		for _, r := range []route.Route{{hop}, {near.hop(t), hop}} {
			carries(t, path(t, d, r, outlet.Identifier(), nil), "hello")
		}
		agent.stop()
	}
	if !wrong() {
		t.Error("no caller has asked at the wrong replica first: the test tests nothing")
	}
	err := noPath(t, d, route.Route{near.hop(t), hop}, newLocal(t).Identifier(), nil)
	wantRefusal(t, err, code.NotRegistered, "hop 2 of 2")
	if n := strings.Count(err.Error(), "not_registered"); n != 2 {
		t.Errorf("got %d refusals in %q, want one of each replica", n, err)
	}
}

// A replica of the first hop that cannot reach the second is not the end: the
// other one may.
func TestReplicaThatCannotReach(t *testing.T) {
	id := newIdentity(t)
	var cut, dials atomic.Int32 // which replica cannot reach the second hop
	replica := func(n int32) func(*Config) {
		return func(c *Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				if cut.Load() == n {
					return nil, errors.New("no route to host")
				}
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		}
	}
	one := startRelayOn(t, listen(t, "127.0.0.1:0"), localOf(t, id), replica(1))
	two := startRelayOn(t, listen(t, fmt.Sprintf("127.0.0.2:%d", one.hop(t).Port)), localOf(t, id), replica(2))
	_ = two
	last := startRelay(t)
	outlet := newLocal(t)
	startAgent(t, outlet, route.Route{last.hop(t)}).log.await(t, 1, "registered at")
	var dns hosts
	dns.set("relay", "127.0.0.1", "127.0.0.2")
	d := &Dialer{Local: newLocal(t), LookupHost: dns.lookup}
	r := route.Route{one.hop(t, "relay"), last.hop(t)}
	for n := range int32(3) {
		cut.Store(n)
		carries(t, path(t, d, r, outlet.Identifier(), nil), "hello")
	}
	if dials.Load() != 4 {
		t.Errorf("%d dials, want 4: in one of the three runs the first replica fails", dials.Load())
	}
}

// A join's two ends are passed on as they are: end as end, reset as reset.
func TestJoinEnds(t *testing.T) {
	relay := startRelay(t)
	outlet := newLocal(t)
	ended := make(chan error, 1)
	startAgent(t, outlet, route.Route{relay.hop(t)}, func(c *AgentConfig) {
		c.Handle = func(_ context.Context, nc net.Conn, _ string) {
			defer nc.Close()
			b, err := io.ReadAll(nc)
			ended <- err
			_, _ = nc.Write(b)
		}
	}).log.await(t, 1, "registered at")
	d := &Dialer{Local: newLocal(t)}
	nc := path(t, d, route.Route{relay.hop(t)}, outlet.Identifier(), nil).(*net.TCPConn)
	if _, err := nc.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	_ = nc.CloseWrite()
	if got, err := io.ReadAll(nc); err != nil || string(got) != "question" {
		t.Errorf("got %q, %v after half a close", got, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the outlet read %v, want an end", err)
	}
	relay.log.await(t, 1, "join ended connect to target 8 to caller 8 <nil>")

	nc = path(t, d, route.Route{relay.hop(t)}, outlet.Identifier(), nil).(*net.TCPConn)
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetLinger(0)
	_ = nc.Close()
	if err := <-ended; err == nil {
		t.Error("the outlet read an end, want a reset")
	}
}
