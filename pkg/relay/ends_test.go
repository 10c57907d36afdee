package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// Serve's end ends everything, and says so to those who can hear it.
func TestServeEnds(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Hold = time.Minute })
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
	if took := time.Since(start); took > soonEnough {
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
		c.Handle = func(_ context.Context, nc net.Conn, _ string) { conns <- nc }
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

func TestJoinRate(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Limits.BytesPerSecond = 200_000 })
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
}

func TestJoinIdle(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Idle = 500 * time.Millisecond })
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
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
		c.Connect = func(channel.Peer, identity.Identifier) error { return check(&noConnect) }
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
	for range joins {
		nc := path(t, d, r, outlet, nil)
		carries(t, nc, "x")
		ends.Go(func() {
			_, err := nc.Read(make([]byte, 1))
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a join ended with %v, want ECONNRESET", err)
			}
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
	if took := time.Since(start); took < over || took > over+soonEnough {
		t.Errorf("draining took %v, want %v", took, over)
	}
	ends.Wait()
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
	if took := time.Since(start); took > patience {
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
	eventually(t, "all bytes are counted", func() bool { return relay.Counts().Bytes() == 10 }) // which those who read them do not wait for
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
	got := relay.Counts()
	want := Counts{
		Registrations: 1, Joins: 1, Conns: st.Conns, Spares: SpareConns, Joined: 1, MostConns: relay.cfg.Limits.Conns, ToTarget: 5, ToCaller: 5,
		Admitted: got.Admitted, // spare conns come and go
	}
	if got.Admitted < uint64(st.Conns) {
		t.Errorf("%d conns were admitted, and %d are here", got.Admitted, st.Conns)
	}
	if got.Handshakes = 0; got != want { // a spare's may be under way
		t.Errorf("got counts %+v, want %+v", got, want)
	}
	eventually(t, "the agent knows of both", func() bool { return agent.Status()[0].Spares == SpareConns })
	as := agent.Status()
	if len(as) != 1 || !as[0].Registered || as[0].Spares != SpareConns || as[0].Address != relay.addr || as[0].Err != nil {
		t.Errorf("got agent status %+v", as)
	}
	nc.Close()
	relay.log.await(t, 1, "join ended")
	if got := relay.Counts(); got.Joins != 0 || got.Joined != 1 || got.ToTarget != 5 || got.ToCaller != 5 {
		t.Errorf("got counts %+v after the join, want its bytes in them", got)
	}
}
