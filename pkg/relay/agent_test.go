package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// registeredAt returns the addresses at which the agent is registered.
func registeredAt(a *testAgent) string {
	var at []string
	for _, s := range a.Status() {
		if s.Registered {
			ap := netip.MustParseAddrPort(s.Address)
			at = append(at, ap.Addr().String())
		}
	}
	return strings.Join(at, " ")
}

// An outlet registers at every address of its relay's host, also of a relay
// behind another, follows the list as it changes, and keeps what works.
func TestAgentEveryAddress(t *testing.T) {
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind another relay %v", behind), func(t *testing.T) {
			id := newIdentity(t)
			one := startRelayOn(t, listen(t, "127.0.0.1:0"), localOf(t, id))
			port := one.hop(t).Port
			two := startRelayOn(t, listen(t, fmt.Sprintf("127.0.0.2:%d", port)), localOf(t, id))
			three := startRelayOn(t, listen(t, fmt.Sprintf("127.0.0.3:%d", port)), localOf(t, id))
			var dns hosts
			r := route.Route{one.hop(t, "relay")}
			var near *testRelay
			if behind {
				near = startRelay(t, func(c *Config) { c.LookupHost = dns.lookup })
				r = append(route.Route{near.hop(t)}, r...)
			}
			agent := startAgent(t, newLocal(t), r, func(c *AgentConfig) {
				c.Refresh = 50 * time.Millisecond
				if !behind {
					c.Dialer.LookupHost = dns.lookup
				}
			})
			agent.log.await(t, 1, "lookup failed")
			if st := agent.Status(); len(st) != 1 || st[0].Registered || st[0].Err == nil || st[0].Address != one.hop(t, "relay").Address() {
				t.Errorf("with an unknown host: got %+v", st)
			}
			at := func(want string) {
				t.Helper()
				eventually(t, "registered at "+want, func() bool { return registeredAt(agent) == want })
			}
			dns.set("relay", "127.0.0.1", "127.0.0.2")
			at("127.0.0.1 127.0.0.2")
			eventually(t, "all spares are parked", func() bool {
				st := agent.Status()
				return st[0].Spares == SpareConns && st[1].Spares == SpareConns
			})
			// One for another: the old one works, and is kept.
			dns.set("relay", "127.0.0.1", "127.0.0.3")
			at("127.0.0.1 127.0.0.2 127.0.0.3")
			dns.set("relay", "127.0.0.3", "127.0.0.2", "127.0.0.1")
			caller := &Dialer{Local: newLocal(t)}
			for _, relay := range []*testRelay{one, two, three} {
				nc := path(t, caller, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
				carries(t, nc, "hello")
			}
			// Not listed any more, and then gone: not tried again.
			dns.set("relay", "127.0.0.3", "127.0.0.1")
			two.stop()
			at("127.0.0.1 127.0.0.3")
			eventually(t, "the address that is gone is forgotten", func() bool { return len(agent.Status()) == 2 })
			// Listed, and gone for a while: tried until it is back.
			three.stop()
			at("127.0.0.1")
			back := startRelayOn(t, listen(t, three.addr), localOf(t, id))
			at("127.0.0.1 127.0.0.3")
			nc := path(t, caller, route.Route{back.hop(t)}, agent.local.Identifier(), nil)
			carries(t, nc, "hello again")
			if n := agent.log.count("registered at 127.0.0.1:"); n != 1 {
				t.Errorf("registered %d times at the address that never failed, want once", n)
			}
			if behind {
				// An unknown host is a refusal; the end of its list is only an answer.
				all, unknown := near.log.count("refused extend no_address"), near.log.count("refused extend no_address looking up")
				if unknown == 0 || all != unknown {
					t.Errorf("%d refusals with no_address, %d of them of an unknown host; want at least one, and no others:\n%s", all, unknown, near.log)
				}
			}
		})
	}
}

// However long a relay was away, its outlets come back before the applications
// give up waiting for them.
func TestAgentPauses(t *testing.T) {
	a, err := NewAgent(AgentConfig{
		Dialer: &Dialer{Local: newLocal(t)}, Route: route.Route{{Host: "relay", Port: 4000}},
		Handle: func(context.Context, net.Conn, string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	pauses := a.newBackoff()
	for i := range 50 {
		pause := pauses.NextBackOff()
		if pause <= 0 || pause > 5*time.Second || i == 0 && pause > 150*time.Millisecond {
			t.Errorf("pause %d is %v, want at most 150ms before the second attempt and never more than 5s", i, pause)
		}
	}
}

// Two addresses that are one relay do not replace each other for ever.
func TestAgentSameRelayTwice(t *testing.T) {
	relay := startRelayOn(t, listen(t, "0.0.0.0:0"), newLocal(t))
	_, port, _ := net.SplitHostPort(relay.addr)
	relay.addr = "127.0.0.1:" + port
	var dns hosts
	dns.set("relay", "127.0.0.1", "127.0.0.2")
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t, "relay")}, func(c *AgentConfig) {
		c.Refresh = 20 * time.Millisecond
		c.Dialer.LookupHost = dns.lookup
	})
	settled := func() bool {
		st := agent.Status()
		if len(st) != 2 {
			return false
		}
		for i, s := range st {
			o := st[1-i]
			if s.Registered && o.SameAs == s.Address && !o.Registered && o.Err == nil {
				return true
			}
		}
		return false
	}
	eventually(t, "one is registered and the other stands by", settled)
	before := agent.log.count("registered at")
	time.Sleep(300 * time.Millisecond) // many refreshes, in which nothing is to happen
	if after := agent.log.count("registered at"); after != before || !settled() {
		t.Errorf("%d registrations, %d before; %+v\n%s", after, before, agent.Status(), agent.log)
	}
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	carries(t, nc, "hello")
}

// An outlet that ends says so to the relay, on all its conns, and waits for
// its handlers.
func TestAgentDeregisters(t *testing.T) {
	relay := startRelay(t)
	var handled atomic.Bool
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) {
		c.Handle = func(ctx context.Context, nc net.Conn, _ string) {
			defer nc.Close()
			<-ctx.Done()
			handled.Store(true)
		}
	})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	eventually(t, "both spares are there", func() bool { return relay.Status().Registrations[0].Spares == SpareConns })
	start := time.Now()
	agent.stop()
	if took := time.Since(start); took > soonEnough {
		t.Errorf("the end took %v", took)
	}
	if !handled.Load() {
		t.Error("Run has not waited for the handler")
	}
	relay.log.await(t, 1, "registration ended shutdown")
	nc.Close()
	eventually(t, "no conn is left", func() bool { return relay.Status().Conns == 0 })
	err := noPath(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	wantRefusal(t, err, code.NotRegistered, "")
}

// A fakeRelay answers requests as a test says.
type fakeRelay struct {
	local *channel.Local
	ln    net.Listener
	wg    sync.WaitGroup
}

func startFakeRelay(t *testing.T, answer func(nc net.Conn, in *channel.Incoming, kind requestKind)) *fakeRelay {
	t.Helper()
	f := &fakeRelay{local: newLocal(t), ln: listen(t, "127.0.0.1:0")}
	f.wg.Go(func() {
		for {
			nc, err := f.ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() {
				in, err := channel.Respond(context.Background(), nc, f.local, channel.PurposeHop, channel.Options{})
				if err != nil {
					return
				}
				defer in.Accept().Close()
				req, err := parseRequest(in.Request())
				if err != nil {
					t.Error(err)
					return
				}
				answer(nc, in, req.Kind)
			})
		}
	})
	t.Cleanup(f.wg.Wait)
	t.Cleanup(func() { f.ln.Close() })
	return f
}

func (f *fakeRelay) route(t *testing.T) route.Route {
	t.Helper()
	h, err := route.ParseHop("tcp://" + f.ln.Addr().String() + "/" + f.local.Identifier().String())
	if err != nil {
		t.Fatal(err)
	}
	return route.Route{h}
}

// discard reads a conn to its end.
func discard(c net.Conn) {
	b := make([]byte, 512)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// say writes messages and reports whether that worked.
func say(c net.Conn, ms ...message) bool {
	for _, m := range ms {
		if writeMessage(c, m) != nil {
			return false
		}
	}
	return true
}

// A parked conn on which nothing comes is taken for dead, and another parked.
func TestAgentParkedConnDies(t *testing.T) {
	var parks atomic.Int32
	f := startFakeRelay(t, func(_ net.Conn, in *channel.Incoming, kind requestKind) {
		c := in.Accept()
		if kind == kindRegister {
			say(c, message{Kind: msgOK, Lease: 30_000}, message{Kind: msgMore, Count: 1})
		} else {
			parks.Add(1)
			say(c, message{Kind: msgOK, Ping: 20}) // and never pings
		}
		discard(c)
	})
	agent := startAgent(t, newLocal(t), f.route(t))
	eventually(t, "three conns have been parked for the one that was asked for", func() bool { return parks.Load() >= 3 })
	agent.log.await(t, 2, channel.ErrDead.Error())
	if n := agent.log.count("registered at"); n != 1 {
		t.Errorf("registered %d times, want once", n)
	}
	agent.stop()
}

// The same, when the relay has gone silent altogether: the registration is
// given up, too, and made again.
func TestAgentRelayGoesSilent(t *testing.T) {
	var registers atomic.Int32
	f := startFakeRelay(t, func(_ net.Conn, in *channel.Incoming, kind requestKind) {
		c := in.Accept()
		registers.Add(1)
		say(c, message{Kind: msgOK, Lease: 300})
		discard(c) // renewals, which are not answered
	})
	agent := startAgent(t, newLocal(t), f.route(t))
	eventually(t, "registered again", func() bool { return registers.Load() >= 2 })
	agent.log.await(t, 1, "relay does not answer")
	agent.stop()
}

// An agent is not made to do what no relay may ask.
func TestAgentRogueRelay(t *testing.T) {
	var parked, most atomic.Int32
	f := startFakeRelay(t, func(_ net.Conn, in *channel.Incoming, kind requestKind) {
		c := in.Accept()
		if kind == kindRegister {
			say(c, message{Kind: msgOK, Lease: 1})
			for range 100 {
				say(c, message{Kind: msgMore, Count: 65535}, message{Kind: msgRenewed})
			}
			discard(c)
			return
		}
		n := parked.Add(1)
		defer parked.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		say(c, message{Kind: msgOK, Ping: 60_000})
		discard(c)
	})
	agent := startAgent(t, newLocal(t), f.route(t), func(c *AgentConfig) { c.MaxSpares = 5 })
	agent.log.await(t, 2, "lost at") // it does not answer renewals either
	if got := most.Load(); got > 5+5 {
		// The last session's conns may still be closing.
		t.Errorf("%d conns were parked at once, want 5 at most", got)
	}
	agent.stop()

	for name, m := range map[string]message{"go on the control conn": {Kind: msgGo}, "renew": {Kind: msgRenew}} {
		t.Run(name, func(t *testing.T) {
			f := startFakeRelay(t, func(_ net.Conn, in *channel.Incoming, _ requestKind) {
				say(in.Accept(), message{Kind: msgOK, Lease: 30_000}, m)
				discard(in.Accept())
			})
			agent := startAgent(t, newLocal(t), f.route(t))
			agent.log.await(t, 1, "unexpected message")
			agent.stop()
		})
	}
}

// A relay that refuses is asked again, for ever, with pauses.
func TestAgentRefused(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Register = nil })
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 3, "relay refuses to register: register_denied")
	st := agent.Status()
	if len(st) != 1 || st[0].Registered {
		t.Fatalf("got %+v", st)
	}
	wantRefusal(t, st[0].Err, code.RegisterDenied, "relay lets nobody offer an outlet")
}

// A lost control conn is made anew at once, and joins outlive it.
func TestAgentControlLost(t *testing.T) {
	relay := startRelay(t)
	var mu sync.Mutex
	var dialled []net.Conn
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) {
		c.Dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, nc)
			return nc, err
		}
	})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	carries(t, nc, "before")
	mu.Lock()
	control := dialled[0]
	mu.Unlock()
	start := time.Now()
	_ = sock.ResetClose(control)
	agent.log.await(t, 2, "registered at")
	if took := time.Since(start); took > soonEnough { // the next renewal comes after 10 s
		t.Errorf("registered again after %v", took)
	}
	carries(t, nc, "after")
	another := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	carries(t, another, "hello")
}
