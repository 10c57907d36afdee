package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// go crosses the answer to a PING: the outlet finds PING and go together, and
// answers both, in that order.
func TestGoCrossesPong(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	outlet.register(t)
	for range 5 {
		_, parked := outlet.park(t)
		relay.mu.Lock()
		sp := relay.outlets[outlet.d.Local.Identifier()][0].spares[0]
		relay.mu.Unlock()
		if err := sp.conn.Ping(); err != nil {
			t.Fatal(err)
		}
		waiting := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier())
		eventually(t, "the spare is taken", func() bool { return outlet.spares() == 0 })
		raw := going(t, parked) // reads PING and go
		near := (<-waiting).must(t)
		if _, err := raw.Write([]byte("raw at once")); err != nil {
			t.Fatal(err)
		}
		hears(t, near, "raw at once")
		if _, err := near.Write([]byte("and back")); err != nil {
			t.Fatal(err)
		}
		hears(t, raw, "and back")
		near.Close()
		raw.Close()
	}
}

// PINGs often, and many callers: no record strays into the raw bytes.
func TestPingsAndCallers(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Ping = 200 * time.Millisecond })
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(saying("hello")) })
	agent.log.await(t, 1, "registered at")
	caller := newLocal(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 15 {
				nc := path(t, &Dialer{Local: caller}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
				hears(t, nc, "hello\n")
				carries(t, nc, "is this clean?")
				nc.Close()
			}
		})
	}
	wg.Wait()
}

// A spare conn that is silent when it is wanted is passed over for the next,
// within the time for going.
func TestSilentSpare(t *testing.T) {
	t.Parallel()                  // it waits for Going
	const given = 3 * time.Second // in which the other one has to answer
	relay := startRelay(t, func(c *Config) { c.Timing.Going = given })
	outlet := newByHand(t, relay)
	outlet.register(t)
	silent, _ := outlet.park(t) // the older: it is taken first
	_, live := outlet.park(t)
	start := time.Now()
	waiting := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier())
	raw := going(t, live)
	near := (<-waiting).must(t)
	if took := time.Since(start); took < given {
		t.Errorf("took %v: the silent one was not tried", took)
	}
	go echo(context.Background(), raw)
	carries(t, near, "hello")
	relay.log.await(t, 1, "spare lost it did not answer when it was wanted")
	_ = silent.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, silent); err == nil {
		t.Error("the silent one ended cleanly, want a reset")
	}
}

// A parked conn that is dead is noticed by the relay while nobody wants it,
// and the outlet is asked for another.
func TestDeadSpareIsReplaced(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Ping = 50 * time.Millisecond })
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	if m := expect(t, control, msgMore); m.Count != SpareConns {
		t.Errorf("asked for %d at first, want %d", m.Count, SpareConns)
	}
	for range SpareConns { // they do not read, and so answer no PING
		outlet.mustAsk(t, request{Kind: kindPark})
	}
	relay.log.await(t, SpareConns, "spare lost "+channel.ErrDead.Error())
	for asked := 0; asked < SpareConns; {
		asked += int(expect(t, control, msgMore).Count)
	}
}

// A parked conn that ends is replaced at once.
func TestClosedSpareIsReplaced(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	expect(t, control, msgMore)
	_, parked := outlet.park(t)
	outlet.park(t)
	_ = parked.Close()
	if m := expect(t, control, msgMore); m.Count != 1 {
		t.Errorf("asked for %d, want 1", m.Count)
	}
	nc, parked := outlet.park(t)
	drop(nc, parked)
	if m := expect(t, control, msgMore); m.Count != 1 {
		t.Errorf("asked for %d, want 1", m.Count)
	}
}

// A parked conn says nothing but going, and that only when asked.
func TestParkedConnTalks(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	outlet.register(t)
	for _, kind := range []messageKind{msgGoing, msgRenew} {
		_, parked := outlet.park(t)
		if err := writeMessage(parked, message{Kind: kind}); err != nil {
			t.Fatal(err)
		}
		_, err := readMessage(parked)
		var closed *channel.CloseError
		if !errors.As(err, &closed) || closed.Code != code.Protocol {
			t.Errorf("message %d: got %v, want a close with %s", kind, err, code.Protocol)
		}
	}
	if n := outlet.spares(); n != 0 {
		t.Errorf("%d spares are left", n)
	}
}

// A caller is held until a conn is parked, in the order of coming; more than
// the queue takes are told so at once.
func TestHold(t *testing.T) {
	relay := startRelay(t, func(c *Config) {
		c.Limits.Waiting = 2
		c.Timing.Hold = time.Hour
	})
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	expect(t, control, msgMore)
	r, id := route.Route{relay.hop(t)}, outlet.d.Local.Identifier()
	waiting := func(n int) {
		eventually(t, fmt.Sprintf("%d callers are held", n), func() bool { return relay.Status().Registrations[0].Waiting == n })
	}
	patient := func() *Dialer { return &Dialer{Local: newLocal(t), AnswerTimeout: patience} }
	first := later(patient(), r, id)
	waiting(1)
	if m := expect(t, control, msgMore); m.Count != 1 {
		t.Errorf("asked for %d more for a caller that is held, want 1", m.Count)
	}
	second := later(patient(), r, id)
	waiting(2)
	err := noPath(t, &Dialer{Local: newLocal(t)}, r, id, nil)
	wantRefusal(t, err, code.Busy, "2 callers already wait")

	_, parked := outlet.mustAsk(t, request{Kind: kindPark})
	raw := going(t, parked)
	near := (<-first).must(t)
	go echo(context.Background(), raw)
	carries(t, near, "the first")
	waiting(1)
	_, parked = outlet.mustAsk(t, request{Kind: kindPark})
	raw = going(t, parked)
	near = (<-second).must(t)
	go echo(context.Background(), raw)
	carries(t, near, "the second")
	waiting(0)
}

// Who waits for a parked conn in vain is told so when the time is over.
func TestHoldEnds(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Hold = 100 * time.Millisecond })
	outlet := newByHand(t, relay)
	outlet.register(t)
	err := noPath(t, &Dialer{Local: newLocal(t), AnswerTimeout: patience}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier(), nil)
	wantRefusal(t, err, code.Busy, "no parked conn of the outlet came free in time")
	if n := relay.Status().Registrations[0].Waiting; n != 0 {
		t.Errorf("%d callers wait", n)
	}
}

// A caller that is held when its outlet goes is told so, and one whose outlet
// comes back goes on waiting for it.
func TestHeldWhileOutletGoes(t *testing.T) {
	relay := startRelay(t)
	id := newIdentity(t)
	outlet := newByHand(t, relay)
	outlet.d.Local = localOf(t, id)
	control := outlet.register(t)
	waiting := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, id.Identifier())
	held := func() bool {
		st := relay.Status().Registrations
		return len(st) > 0 && st[0].Waiting == 1
	}
	eventually(t, "the caller is held", held)
	outlet.register(t) // replaces
	eventually(t, "the caller is held again", held)
	_ = control
	_, parked := outlet.mustAsk(t, request{Kind: kindPark})
	going(t, parked).Close()
	(<-waiting).must(t)

	waiting = later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, id.Identifier())
	eventually(t, "the caller is held", held)
	last := outlet.register(t)
	_ = last.Close()
	wantRefusal(t, (<-waiting).err, code.NotRegistered, "")
}

// The relay keeps asking for what does not come, at the next renewals.
func TestAsksAgain(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Hold = 20 * time.Millisecond })
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	expect(t, control, msgMore)
	time.Sleep(30 * time.Millisecond) // beyond Hold, nothing comes
	if err := writeMessage(control, message{Kind: msgRenew}); err != nil {
		t.Fatal(err)
	}
	if m := expect(t, control, msgMore); m.Count != SpareConns {
		t.Errorf("asked for %d again, want %d", m.Count, SpareConns)
	}
}

// A newest instance whose conns are silent does not hide the older one.
func TestSilentInstance(t *testing.T) {
	t.Parallel() // it waits for Going
	relay := startRelay(t, func(c *Config) { c.Timing.Going = 3 * time.Second })
	id := newIdentity(t)
	agent := startAgent(t, localOf(t, id), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	silent := newByHand(t, relay)
	silent.d.Local = localOf(t, id)
	silent.register(t)
	silent.park(t)
	silent.park(t)
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, id.Identifier(), nil)
	carries(t, nc, "hello")
	if n := relay.log.count("did not answer"); n != 1 {
		t.Errorf("%d silent conns were tried, want 1", n)
	}
}

// Two instances of one identity stand side by side: without an instance the
// newest that does not drain, with one that or none.
func TestTwoInstances(t *testing.T) {
	relay := startRelay(t)
	id := newIdentity(t)
	r := route.Route{relay.hop(t)}
	start := func(name string) *testAgent {
		a := startAgent(t, localOf(t, id), r, func(c *AgentConfig) { c.Handle = handled(saying(name)) })
		a.log.await(t, 1, "registered at")
		eventually(t, "it has spares", func() bool { return a.Status()[0].Spares > 0 })
		return a
	}
	older, newer := start("older"), start("newer")
	if n := len(relay.Status().Registrations); n != 2 {
		t.Fatalf("%d registrations, want 2 side by side", n)
	}
	d := &Dialer{Local: newLocal(t)}
	join := func(instance *channel.Instance, want string) net.Conn {
		t.Helper()
		nc := path(t, d, r, id.Identifier(), instance)
		hears(t, nc, want+"\n")
		return nc
	}
	oldInstance, newInstance := older.local.Instance(), newer.local.Instance()
	join(nil, "newer")
	join(&oldInstance, "older")
	kept := join(&newInstance, "newer")

	newer.Drain()
	eventually(t, "the relay knows that it drains", func() bool {
		for _, r := range relay.Status().Registrations {
			if r.Instance == newInstance.String() {
				return r.Draining
			}
		}
		return false
	})
	join(nil, "older")
	join(&newInstance, "newer") // who has something there may still come
	carries(t, kept, "still here")

	older.Drain()
	eventually(t, "both drain", func() bool {
		st := relay.Status().Registrations
		return st[0].Draining && st[1].Draining
	})
	wantRefusal(t, noPath(t, d, r, id.Identifier(), nil), code.Draining, "is going away")

	newer.stop()
	relay.log.await(t, 1, "registration ended shutdown "+newInstance.String())
	wantRefusal(t, noPath(t, d, r, id.Identifier(), &newInstance), code.Gone, newInstance.String())
}

// The same instance replaces its own registration at once; the old one is told
// and its spare conns go.
func TestReplaced(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	old := outlet.register(t)
	_, parked := outlet.park(t)
	control := outlet.register(t)
	for name, conn := range map[string]*channel.Conn{"control conn": old, "parked conn": parked} {
		var err error
		for err == nil {
			_, err = readMessage(conn)
		}
		var closed *channel.CloseError
		if !errors.As(err, &closed) || closed.Code != code.Replaced {
			t.Errorf("%s: got %v, want a close with %s", name, err, code.Replaced)
		}
	}
	st := relay.Status()
	if len(st.Registrations) != 1 || st.Registrations[0].Spares != 0 {
		t.Errorf("got %+v, want one registration without spares", st.Registrations)
	}
	expect(t, control, msgMore)
	relay.log.await(t, 1, "registration ended replaced")
	// The new one works.
	outlet.park(t)
}

// A control conversation in which the outlet talks nonsense ends with words.
func TestControlNonsense(t *testing.T) {
	relay := startRelay(t)
	for name, send := range map[string]func(c *channel.Conn) error{
		"a message of the relay's": func(c *channel.Conn) error { return writeMessage(c, message{Kind: msgMore, Count: 7}) },
		"no message":               func(c *channel.Conn) error { _, err := c.Write([]byte{0, 0}); return err },
		"a long message":           func(c *channel.Conn) error { _, err := c.Write([]byte{255, 255}); return err },
	} {
		outlet := newByHand(t, relay)
		control := outlet.register(t)
		if err := send(control); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			_, err = readMessage(control)
		}
		var closed *channel.CloseError
		if !errors.As(err, &closed) || closed.Code != code.Protocol || !strings.Contains(err.Error(), "unexpected message") {
			t.Errorf("%s: got %v, want a close with %s", name, err, code.Protocol)
		}
	}
	eventually(t, "no registration is left", func() bool { return len(relay.Status().Registrations) == 0 })
}

// An outlet that renews without end and never reads costs no memory and no
// goroutine: its conversation is ended.
func TestControlFlood(t *testing.T) {
	relay := startRelay(t)
	outlet := newByHand(t, relay)
	control := outlet.register(t)
	_ = control.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	sent := 0
	for ; ; sent++ {
		if err := writeMessage(control, message{Kind: msgRenew}); err != nil {
			break
		}
	}
	if sent < 100 {
		t.Fatalf("%d renewals sent: the test tests nothing", sent)
	}
	// The relay still serves others.
	newByHand(t, relay).register(t)
}
