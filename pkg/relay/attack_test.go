package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// A spare conn that dies at any step of being wanted costs its caller nothing
// but time: the next one is taken, and no conn stays counted.
func TestSpareDiesAtEachStep(t *testing.T) {
	say := func(t *testing.T, conn *channel.Conn, m message) {
		if err := writeMessage(conn, m); err != nil {
			t.Error(err)
		}
	}
	steps := map[string]func(t *testing.T, nc net.Conn, conn *channel.Conn){
		"resets when wanted":         func(_ *testing.T, nc net.Conn, _ *channel.Conn) { sock.ResetClose(nc) },
		"ends without a word":        func(_ *testing.T, nc net.Conn, _ *channel.Conn) { nc.(*net.TCPConn).CloseWrite() },
		"closes":                     func(_ *testing.T, _ net.Conn, conn *channel.Conn) { conn.Close() },
		"closes with a reason":       func(_ *testing.T, _ net.Conn, conn *channel.Conn) { _ = conn.CloseWithReason(code.Shutdown, "bye") },
		"says nothing":               func(*testing.T, net.Conn, *channel.Conn) {},
		"says renew":                 func(t *testing.T, _ net.Conn, conn *channel.Conn) { say(t, conn, message{Kind: msgRenew}) },
		"says what is no message":    func(t *testing.T, _ net.Conn, conn *channel.Conn) { conn.Write([]byte{0xff, 0xff}) },
		"sends what is no record":    func(_ *testing.T, nc net.Conn, _ *channel.Conn) { nc.Write(make([]byte, 64)) },
		"says half of going":         func(_ *testing.T, _ net.Conn, conn *channel.Conn) { conn.Write([]byte{0}) },
		"says going and more behind": func(t *testing.T, _ net.Conn, conn *channel.Conn) { sayTwice(t, conn) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some wait for as long as a conn may take to answer
			relay := startRelay(t, func(c *Config) { c.Timing.Going = 3 * time.Second })
			outlet := newByHand(t, relay)
			outlet.register(t)
			badNC, bad := outlet.park(t)
			_, good := outlet.park(t)
			caller := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier())
			expect(t, bad, msgGo)
			step(t, badNC, bad)
			raw := going(t, good)
			near := (<-caller).must(t)
			go echo(context.Background(), raw)
			carries(t, near, "the second")
			near.Close()
			relay.log.await(t, 1, "join ended")
			eventually(t, "the control conn alone is counted", func() bool { return relay.Counts().Conns == 1 })
		})
	}
}

// sayTwice sends going and another message in one record.
func sayTwice(t *testing.T, conn *channel.Conn) {
	t.Helper()
	var two recorder
	if err := errors.Join(writeMessage(&two, message{Kind: msgGoing}), writeMessage(&two, message{Kind: msgRenew})); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write(two); err != nil {
		t.Error(err)
	}
}

type recorder []byte

func (r *recorder) Write(b []byte) (int, error) { *r = append(*r, b...); return len(b), nil }

// A route may go through one relay again and again, as far as its list and its
// limits allow: each round is a conn of the caller's and ends with it.
func TestCircle(t *testing.T) {
	relay := startRelay(t, func(c *Config) {
		c.Limits.Handshakes = 1
		c.Limits.ConnsPerIdentity = 10
	})
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	circle := make(route.Route, route.MaxHops)
	for i := range circle {
		circle[i] = relay.hop(t)
	}
	eventually(t, "two spares", func() bool { return relay.Counts().Conns == 1+SpareConns })
	d := &Dialer{Local: newLocal(t)}
	nc := path(t, d, circle, agent.local.Identifier(), nil)
	carries(t, nc, "round and round")
	if got := relay.Counts().Joins; got != route.MaxHops {
		t.Errorf("%d joins, want %d", got, route.MaxHops)
	}
	err := noPath(t, d, circle, agent.local.Identifier(), nil)
	wantRefusal(t, err, code.Limit, "10 conns of your identity")
	nc.Close()
	eventually(t, "nothing of it is left", func() bool { return relay.Counts().Joins == 0 && relay.Counts().Conns == 1+SpareConns })
}

// An outlet that registers over and over leaves nothing behind, and its callers
// get through in between or hear why not.
func TestFlapping(t *testing.T) {
	relay := startRelay(t)
	id := newIdentity(t)
	outlet := newByHand(t, relay)
	outlet.d.Local = localOf(t, id)
	const rounds, sides = 60, 4
	var flapping sync.WaitGroup
	for range sides {
		flapping.Go(func() {
			for range rounds {
				nc, conn, err := outlet.ask(t, request{Kind: kindRegister})
				if err != nil {
					t.Errorf("registering: %v", err)
					return
				}
				go drop(nc, conn)
			}
		})
	}
	flapping.Wait()
	relay.log.await(t, sides*rounds, "registration ended")
	eventually(t, "nothing is left", func() bool {
		c := relay.Counts()
		return c.Registrations+c.Joins+c.Conns+c.Spares+c.Waiting == 0
	})
	if n := len(relay.outlets); n != 0 {
		t.Errorf("%d identifiers in the table, want none", n)
	}
	agent := startAgent(t, localOf(t, id), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	carries(t, path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, id.Identifier(), nil), "after all")
}

// Draining while bytes flow and callers come: every join is told by a reset,
// every caller by a refusal or a reset, and nothing is left.
func TestDrainUnderLoad(t *testing.T) {
	relay := startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	const flows = 16
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, d := route.Route{relay.hop(t)}, &Dialer{Local: newLocal(t)}
	for range flows {
		running.Go(func() {
			for {
				nc, err := d.Path(ctx, r, agent.local.Identifier(), nil, 0)
				switch r := refusedBy(err); {
				case r != nil && r.Code == code.Busy:
					continue // the others' bytes have not let the outlet park another
				case err != nil:
					wantRefusal(t, err, code.Draining, "")
					return
				}
				if err := flow(ctx, nc); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("a flow ended with %v", err)
				}
			}
		})
	}
	eventually(t, "all flow", func() bool { return relay.Counts().Joins == flows && relay.Counts().Bytes() > 64<<20 })
	start := time.Now()
	if err := relay.Drain(context.Background(), time.Second); err != nil {
		t.Errorf("Drain: %v", err)
	}
	t.Logf("%d MiB, drained in %v", relay.Counts().Bytes()>>20, time.Since(start))
	running.Wait()
	if got := relay.Counts().Joins; got != 0 {
		t.Errorf("%d joins are left", got)
	}
}

// flow sends and reads what comes back, until an error.
func flow(ctx context.Context, nc net.Conn) error {
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	sent := make(chan error, 1)
	go func() {
		b := make([]byte, 32<<10)
		for {
			if _, err := nc.Write(b); err != nil {
				sent <- err
				return
			}
		}
	}()
	_, err := io.Copy(io.Discard, nc)
	nc.Close()
	if err == nil {
		err = <-sent
	} else {
		<-sent
	}
	return err
}
