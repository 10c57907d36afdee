package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A catalogue is what outlets offer, and which of them callers may connect to.
type catalogue struct {
	mu     sync.Mutex
	offers map[identity.Identifier]string
	closed map[identity.Identifier]bool // the zero identifier: outlets in general
}

func newCatalogue() *catalogue {
	return &catalogue{offers: map[identity.Identifier]string{}, closed: map[identity.Identifier]bool{}}
}

func (k *catalogue) set(outlet identity.Identifier, service string, closed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.offers[outlet], k.closed[outlet] = service, closed
}

// rule is a config that asks the catalogue.
func (k *catalogue) rule(c *Config) {
	c.Offers = func() func(channel.Peer, string) bool {
		return func(p channel.Peer, service string) bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.offers[p.Identifier] == service
		}
	}
	c.Connect = func(_ channel.Peer, outlet identity.Identifier) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed[outlet] {
			return &DeniedError{Code: code.CredentialExpired, Told: "you may not", Why: "the policy says so"}
		}
		return nil
	}
}

// find asks, and has to get an answer.
func find(t testing.TB, d *Dialer, r route.Route, service string) []Replica {
	t.Helper()
	found, err := tryFind(d, r, service)
	if err != nil {
		t.Fatalf("finding %s along %s: %v", service, r, err)
	}
	return found
}

// noFind asks, and has to be refused or fail.
func noFind(t testing.TB, d *Dialer, r route.Route, service string) error {
	t.Helper()
	found, err := tryFind(d, r, service)
	if err == nil || found != nil {
		t.Fatalf("finding %s along %s: got %v, %v; want an error", service, r, found, err)
	}
	return err
}

func tryFind(d *Dialer, r route.Route, service string) ([]Replica, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return d.Find(ctx, r, service)
}

// same reports whether two lists have the same in them.
func same(a, b []Replica) bool {
	count := map[Replica]int{}
	for _, r := range a {
		count[r]++
	}
	for _, r := range b {
		count[r]--
	}
	return !slices.ContainsFunc(slices.Collect(maps.Values(count)), func(n int) bool { return n != 0 })
}

func replicaOf(l *channel.Local, draining bool) Replica {
	return Replica{Outlet: l.Identifier(), Instance: l.Instance(), Draining: draining}
}

// A caller is told of the outlets that offer the service and that it may connect to,
// through whatever relays the way leads, and of no others.
func TestFind(t *testing.T) {
	k := newCatalogue()
	relay := startRelay(t, k.rule)
	near := startRelay(t)
	shared := newIdentity(t)
	one, two, closed, other := newByHand(t, relay), newByHand(t, relay), newByHand(t, relay), newByHand(t, relay)
	one.d.Local, two.d.Local = localOf(t, shared), localOf(t, shared)
	for _, o := range []*byHand{one, two, closed, other} {
		o.register(t)
	}
	k.set(shared.Identifier(), "orders-db", false)
	k.set(closed.d.Local.Identifier(), "orders-db", true)
	k.set(other.d.Local.Identifier(), "stock-db", false)
	d := &Dialer{Local: newLocal(t)}
	for _, r := range []route.Route{{relay.hop(t)}, {near.hop(t), relay.hop(t)}} {
		want := []Replica{replicaOf(one.d.Local, false), replicaOf(two.d.Local, false)}
		if got := find(t, d, r, "orders-db"); !same(got, want) {
			t.Errorf("along %s: got %v, want %v", r, got, want)
		}
		if got := find(t, d, r, "orders"); got != nil {
			t.Errorf("along %s: got %v for what nobody offers", r, got)
		}
	}
	relay.log.await(t, 2, "found 2 of orders-db, 0 left out")
	relay.log.await(t, 2, "found 0 of orders, 0 left out")
	eventually(t, "no conn of a find stays counted", func() bool { return relay.Counts().Conns == 4 })
}

// An outlet that drains is marked.
func TestFindMarksTheDraining(t *testing.T) {
	k := newCatalogue()
	relay := startRelay(t, k.rule)
	outlet := newByHand(t, relay)
	conn := outlet.register(t)
	k.set(outlet.d.Local.Identifier(), "orders-db", false)
	d := &Dialer{Local: newLocal(t)}
	if err := writeMessage(conn, message{Kind: msgDraining}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay has heard", func() bool { return relay.Status().Registrations[0].Draining })
	want := []Replica{replicaOf(outlet.d.Local, true)}
	if got := find(t, d, route.Route{relay.hop(t)}, "orders-db"); !same(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What a refused caller hears depends on nothing that it may not connect to.
func TestFindRefused(t *testing.T) {
	t.Run("no authority", func(t *testing.T) {
		relay := startRelay(t)
		err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
		wantRefusal(t, err, code.FindDenied, "trusts no authority")
		wantRefusal(t, err, code.FindDenied, "authorities:")
		relay.log.await(t, 1, "refused find find_denied")
	})
	t.Run("connects nobody", func(t *testing.T) {
		relay := startRelay(t, newCatalogue().rule, func(c *Config) { c.Connect = nil })
		err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
		wantRefusal(t, err, code.ConnectDenied, "relay lets nobody connect")
	})
	t.Run("may connect nowhere", func(t *testing.T) {
		k := newCatalogue()
		relay := startRelay(t, k.rule)
		outlet := newByHand(t, relay)
		outlet.register(t)
		k.set(identity.Identifier{}, "", true)
		k.set(outlet.d.Local.Identifier(), "orders-db", true)
		d := &Dialer{Local: newLocal(t)}
		offered := noFind(t, d, route.Route{relay.hop(t)}, "orders-db")
		wantRefusal(t, offered, code.CredentialExpired, "you may not")
		if unknown := noFind(t, d, route.Route{relay.hop(t)}, "stock-db"); unknown.Error() != offered.Error() {
			t.Errorf("told %q of what there is, %q of what there is not", offered, unknown)
		}
		// That one alone is open to it.
		k.set(outlet.d.Local.Identifier(), "orders-db", false)
		if got := find(t, d, route.Route{relay.hop(t)}, "orders-db"); len(got) != 1 {
			t.Errorf("got %v, want the outlet", got)
		}
	})
	t.Run("unrecorded", func(t *testing.T) {
		relay := startRelay(t, newCatalogue().rule, func(c *Config) {
			c.Audit = func(g Grant) error {
				if g.Request != "find" || g.Service != "orders-db" {
					t.Errorf("asked to record %+v", g)
				}
				return errors.New("no ink")
			}
		})
		err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
		wantRefusal(t, err, code.AuditFailed, "no ink")
	})
	t.Run("draining", func(t *testing.T) {
		relay := startRelay(t, newCatalogue().rule)
		if err := relay.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
		wantRefusal(t, err, code.Draining, "relay is going away")
	})
	t.Run("no name", func(t *testing.T) {
		relay := startRelay(t, newCatalogue().rule)
		for _, name := range []string{"", "a\x00b"} {
			if err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, name); refusedBy(err) != nil {
				t.Errorf("%q was asked for: %v", name, err)
			}
		}
		if err := noFind(t, &Dialer{Local: newLocal(t)}, nil, "orders-db"); err == nil {
			t.Error("an empty route is no error")
		}
	})
}

// Of too many each caller is told of as many as an answer holds, always of the same,
// others of others, and of those that drain last.
func TestFindTooMany(t *testing.T) {
	k := newCatalogue()
	relay := startRelay(t, k.rule)
	const more, draining = 50, 20
	crowd(relay, k, maxFound+more, draining)
	r := route.Route{relay.hop(t)}
	var before []Replica
	for i := range 3 {
		d := &Dialer{Local: newLocal(t)}
		got := find(t, d, r, "orders-db")
		if len(got) != maxFound {
			t.Fatalf("got %d, want %d", len(got), maxFound)
		}
		if slices.ContainsFunc(got, func(r Replica) bool { return r.Draining }) {
			t.Error("told of one that drains, in the place of one that does not")
		}
		if again := find(t, d, r, "orders-db"); !slices.Equal(got, again) {
			t.Error("told of others the second time")
		}
		if same(before, got) {
			t.Error("two callers are told of the same")
		}
		relay.log.await(t, 2*i+2, fmt.Sprintf("found %d of orders-db, %d left out", maxFound, more))
		before = got
	}
}

// crowd puts n outlets that offer orders-db into the relay's table, of which some
// drain.
func crowd(relay *testRelay, k *catalogue, n, draining int) {
	relay.mu.Lock()
	defer relay.mu.Unlock()
	for i := range n {
		id := identity.Identifier{0: 1, 1: byte(i), 2: byte(i >> 8)}
		relay.outlets[id] = []*registration{{s: relay.Server, peer: channel.Peer{Identifier: id}, draining: i < draining}}
		k.set(id, "orders-db", false)
	}
	relay.registrations += n
}

// One find at a time looks through the outlets: others wait, not for ever, and who
// leaves or talks meanwhile is let go of.
func TestFindWaits(t *testing.T) {
	relay := startRelay(t, newCatalogue().rule, func(c *Config) { c.Timing.Hold = time.Minute })
	relay.finding <- struct{}{}
	ask := func() *channel.Conn {
		nc, err := net.Dial("tcp", relay.addr)
		if err != nil {
			t.Fatal(err)
		}
		b, err := findRequest("orders-db").encode()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := channel.Initiate(t.Context(), nc, newLocal(t), relay.local.Identifier(), channel.PurposeHop, b, channel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		return conn
	}
	leaves, talks, waits := ask(), ask(), ask()
	defer waits.Close()
	_ = leaves.Close()
	relay.log.await(t, 1, "abandoned find")
	if _, err := talks.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	_, err := readMessage(talks)
	wantRefusal(t, err, code.Protocol, "bytes came before the answer")
	_ = talks.Close()
	<-relay.finding
	if found, err := readFound(waits); err != nil || found != nil {
		t.Errorf("the one that waited: %v, %v; want an empty answer", found, err)
	}
}

func TestFindBusy(t *testing.T) {
	relay := startRelay(t, newCatalogue().rule, func(c *Config) { c.Timing.Hold = 10 * time.Millisecond })
	relay.finding <- struct{}{}
	err := noFind(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
	wantRefusal(t, err, code.Busy, "too many look for outlets at once")
}

// Those who may not connect to outlets in general keep nobody else waiting, however
// many they are, nor the reverse.
func TestFindOfStrangersWaitsApart(t *testing.T) {
	stranger, known := newLocal(t), newLocal(t)
	relay := startRelay(t, newCatalogue().rule, func(c *Config) {
		c.Timing.Hold = 500 * time.Millisecond
		rule := c.Connect
		c.Connect = func(p channel.Peer, outlet identity.Identifier) error {
			if p.Identifier == stranger.Identifier() && outlet.IsZero() {
				return errors.New("not in general")
			}
			return rule(p, outlet)
		}
	})
	r := route.Route{relay.hop(t)}
	relay.findingOthers <- struct{}{}
	wantRefusal(t, noFind(t, &Dialer{Local: stranger}, r, "orders-db"), code.Busy, "too many look for outlets at once")
	if got := find(t, &Dialer{Local: known}, r, "orders-db"); len(got) != 0 {
		t.Errorf("found %v, want nobody", got)
	}
	<-relay.findingOthers
	relay.finding <- struct{}{}
	wantRefusal(t, noFind(t, &Dialer{Local: stranger}, r, "orders-db"), code.ConnectDenied, "")
	wantRefusal(t, noFind(t, &Dialer{Local: known}, r, "orders-db"), code.Busy, "too many look for outlets at once")
}

// A relay that stops while a find waits says so.
func TestFindWhileStopping(t *testing.T) {
	relay := startRelay(t, newCatalogue().rule, func(c *Config) { c.Timing.Hold = time.Minute })
	relay.finding <- struct{}{}
	asked := make(chan error, 1)
	go func() {
		_, err := tryFind(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, "orders-db")
		asked <- err
	}()
	eventually(t, "the caller is there", func() bool { return relay.Counts().Conns == 1 })
	relay.stop()
	if err := <-asked; refusedBy(err) == nil || refusedBy(err).Code != code.Shutdown {
		t.Errorf("got %v, want a refusal with shutdown", err)
	}
}
