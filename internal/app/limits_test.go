package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A peerProcess is one process of an identity that several share, as far as an
// outlet sees it: a channel, and the path under it.
type peerProcess struct {
	ch   *channel.Channel
	path net.Conn
}

// kill ends the process without a word.
func (r *peerProcess) kill() { _ = sock.ResetClose(r.path) }

// startReplica opens a channel to the outlet as another process of the identity.
func startReplica(t *testing.T, out *Outlet, as *identity.Identity) (*peerProcess, error) {
	t.Helper()
	local, err := channel.NewLocal(as)
	if err != nil {
		t.Fatal(err)
	}
	r := &peerProcess{}
	caller := &channel.Caller{
		Local: local, Peer: out.Identifier(), Routes: 1,
		Path: func(ctx context.Context, _ int, _ *channel.Instance, _ int) (net.Conn, error) {
			if r.path != nil {
				return nil, errors.New("the process is no more")
			}
			var d net.Dialer
			r.path, err = d.DialContext(ctx, "tcp", out.Addrs()[0].String())
			return r.path, err
		},
	}
	if r.ch, err = caller.Dial(t.Context(), 0); err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = r.ch.Run(context.Background()) })
	t.Cleanup(func() {
		r.kill()
		r.ch.Fail(code.Shutdown, errShutdown)
		running.Wait()
	})
	return r, nil
}

// Processes that have died keep no places from those that are started in their
// stead, however long the grace time is: it is theirs only while there is room.
func TestDeadReplicasKeepNobodyOut(t *testing.T) {
	t.Parallel()
	key, peer := newIdentity(t)
	as, err := identity.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	outletKey, _ := newIdentity(t)
	out, log, _ := startOutlet(t, config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Millisecond}, Channels: config.Channels{Grace: time.Hour},
		Listen:   []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: serveTCP(t, echo), Allow: policy.List(peer)}},
	})
	const first = 40 // of them, on one machine
	var dead, alive []*peerProcess
	for range first {
		r, err := startReplica(t, out, as)
		if err != nil {
			t.Fatal(err)
		}
		dead = append(dead, r)
	}
	for _, r := range dead {
		r.kill()
	}
	eventually(t, "the outlet has noticed", func() bool { return out.table.Detached() == first })
	for i := range maxPeerChannels {
		r, err := startReplica(t, out, as)
		if err != nil {
			t.Fatalf("process %d after %d have died: %v", i+1, first, err)
		}
		alive = append(alive, r)
	}
	eventually(t, "the dead are gone", func() bool { return out.table.Detached() == 0 && out.channels.count() == maxPeerChannels })
	var refused *channel.RefusedError
	if _, err := startReplica(t, out, as); !errors.As(err, &refused) || refused.Code != code.Limit {
		t.Errorf("one more than there may be: %v, want a refusal for the limit", err)
	}
	for i, r := range alive {
		if err := r.ch.Err(); err != nil {
			t.Errorf("process %d, which lives, has lost its channel: %v", i+1, err)
		}
	}
	if n := len(log.lines(t, map[string]string{"msg": "channel lost", "code": code.Limit.String()})); n != first {
		t.Errorf("%d lines about channels that were ended for others, want %d", n, first)
	}
	// Now and then one dies and is started again: for ever, not 64 times.
	for i := range 2 * maxPeerChannels {
		alive[0].kill()
		eventually(t, "the outlet has noticed", func() bool { return out.table.Detached() == 1 })
		r, err := startReplica(t, out, as)
		if err != nil {
			t.Fatalf("start %d: %v", i+1, err)
		}
		alive = append(alive[1:], r)
	}
}

// Beyond the rate callers of an outlet wait in the kernel, not in the process;
// stopping does not wait for their turn.
func TestOutletLimitsHandshakesPerSecond(t *testing.T) {
	t.Parallel()
	key, peer := newIdentity(t)
	as, err := identity.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	outletKey, _ := newIdentity(t)
	out, _, stop := startOutlet(t, config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Millisecond}, Limits: config.OutletLimits{HandshakesPerSecond: 2},
		Listen:   []config.Address{local(0), local(0)},
		Services: []config.OutletService{{Name: "echo", Target: serveTCP(t, echo), Allow: policy.List(peer)}},
	}, func(out *Outlet) {
		if out.rate.Limit() != 2 || out.rate.Burst() != 2 {
			t.Errorf("rate %v with bursts of %d, want 2 and 2", out.rate.Limit(), out.rate.Burst())
		}
	})
	start := time.Now()
	const times = 4
	for range times {
		if _, err := startReplica(t, out, as); err != nil {
			t.Fatal(err)
		}
	}
	// Two at once, less one that the other listener holds, then two a second.
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("%d handshakes after %s, want no more than 2 a second", times, took)
	}
	watch := testenv.Start(t)
	stop()
	if took := watch.Took(); took > 3*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

// What this process serves itself holds no more of a stream that it does not read
// than it says.
func TestHostedStreamsHoldLittle(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	sys := startSystem(t, setup{before: func(out *Outlet) {
		out.window = memberWindow
		out.offered.Load().services[0].handle = func(context.Context, *tunnel.Stream, channel.Peer) error {
			<-release
			return nil
		}
	}})
	t.Cleanup(func() { close(release) }) // before the outlet is stopped
	nc := sys.dial(t)
	mustCram(t, nc)
	const most = memberWindow + 64<<10 // what is said of the stream, too
	if got := sys.outlet.channels.list()[0].session.ch.State().Received; got < memberWindow/2 || got > most {
		t.Errorf("%d bytes have come that nobody reads, want about %d", got, memberWindow)
	}
}
