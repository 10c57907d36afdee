package app

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// An inlet or outlet that cannot accept any more stops, and says so to whoever
// started it, as a relay does.
func TestListenerFails(t *testing.T) {
	key, id := newIdentity(t)
	common := config.Common{Identity: key, DrainTimeout: time.Second}
	o, inletLog := newObs(t, "inlet")
	service := config.InletService{Listen: local(0), Service: "echo", Outlet: id, Routes: []route.Route{{{Host: "127.0.0.1", Port: 1, Identifier: id}}}}
	in, err := NewInlet(&config.Inlet{Common: common, Services: []config.InletService{service, service}}, o)
	if err != nil {
		t.Fatal(err)
	}
	o, outletLog := newObs(t, "outlet")
	out, err := NewOutlet(&config.Outlet{
		Common: common, Listen: []config.Address{local(0), local(0)},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id)}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		name   string
		listen func(context.Context) error
		run    func(context.Context) error
		lns    *[]net.Listener
		log    *logBuffer
	}{
		{"inlet", in.Listen, in.Run, &in.lns, inletLog},
		{"outlet", out.Listen, out.Run, &out.lns, outletLog},
	} {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := p.listen(ctx); err != nil {
				t.Fatal(err)
			}
			bad := (*p.lns)[1]
			_ = bad.Close()
			watch := testenv.Start(t)
			if err := p.run(ctx); err == nil || !strings.Contains(err.Error(), bad.Addr().String()) {
				t.Errorf("got %v, want an error that names the listener", err)
			}
			if took := watch.Took(); took > 5*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if got := len(p.log.lines(t, map[string]string{"msg": "listener failed", "level": "error"})); got != 1 {
				t.Errorf("%d lines about the listener, want 1", got)
			}
		})
	}
}

// A stopping inlet does not keep clients waiting that have no stream yet: there
// may never be a channel.
func TestStoppingInletSendsWaitingClientsAway(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{inlet: func(c *config.Inlet) {
		c.Services[0].Routes[0] = withPort(c.Services[0].Routes[0], testenv.Port(t))
		c.ConnectTimeout, c.DrainTimeout = time.Minute, time.Minute
	}})
	nc := sys.dial(t)
	eventually(t, "the client waits", func() bool { return sys.inlet.allLinks()[0].waiting.Load() == 1 })
	watch := testenv.Start(t)
	done := startStop(sys.stopInlet)
	wantReset(t, nc)
	<-done
	if took := watch.Took(); took > lastWait+2*time.Second {
		t.Errorf("stopping took %s, want about %s", took, lastWait)
	}
	if got := len(sys.inletLog.lines(t, map[string]string{"msg": "stream ended early", "code": "shutdown"})); got != 1 {
		t.Errorf("%d lines that name the stop, want 1", got)
	}
}

// A client that waits for a channel when the inlet is told to stop is served
// when there is one soon.
func TestStoppingInletServesWhomItCan(t *testing.T) {
	t.Parallel()
	for try := 1; ; try++ {
		watch := testenv.Start(t)
		if servedAtTheStop(t) {
			return
		}
		if lost := watch.Lost(); lost < lastWait/4 || try == 3 {
			t.Fatalf("the client that waited is sent away; the machine has lost %s of the %s that it has", lost, lastWait)
		}
	}
}

// servedAtTheStop reports whether a client that waits when an inlet is told to stop is
// served over a relay that is there by then.
func servedAtTheStop(t *testing.T) bool {
	t.Helper()
	port := testenv.Port(t)
	var rc config.Relay
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) { rc = *c },
		outlet: func(c *config.Outlet) {
			rc.Listen = []config.Address{local(port)}
			c.Relays[0] = withPort(c.Relays[0], port)
		},
		inlet: func(c *config.Inlet) {
			c.Services[0].Routes[0] = withPort(c.Services[0].Routes[0], port)
			c.ConnectTimeout, c.DrainTimeout = time.Minute, patience
		},
	})
	nc := sys.dial(t)
	eventually(t, "the client waits", func() bool { return sys.inlet.allLinks()[0].waiting.Load() == 1 })
	rl, _, _ := startRelay(t, rc)
	eventually(t, "the outlet is registered", func() bool { return len(rl.Status().Registrations) == 1 })
	done := startStop(sys.stopInlet)
	served := echoes(nc)
	_ = nc.Close()
	<-done
	return served
}

// Streams that are cut while the channel has no path, and more to send than it
// takes, do not hold the inlet's end up until the grace time is over.
func TestStoppingInletWithFullBuffers(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) { c.DrainTimeout = time.Millisecond },
		inlet: func(c *config.Inlet) { c.DrainTimeout, c.Grace = 50*time.Millisecond, time.Minute },
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopRelay()
	eventually(t, "no path", func() bool { return sys.inlet.allLinks()[0].ready() != nil })
	mustCram(t, nc)
	watch := testenv.Start(t)
	sys.stopInlet()
	if took := watch.Took(); took > lastWait+cutTime+2*time.Second {
		t.Errorf("stopping took %s, want at most %s", took, lastWait+cutTime)
	}
	wantReset(t, nc)
}

// What bounds a channel's end is stopped with it.
func TestStopLeavesNoTimer(t *testing.T) {
	t.Parallel()
	sys, _ := startDirect(t, nil, nil)
	wantEcho(t, dialTCP(t, sys.inlet.Addrs()[0]), "hello")
	s := sys.outlet.channels.list()[0].session
	sys.stopOutlet()
	if s.last == nil || s.last.Stop() {
		t.Error("the timer of a channel that has ended was not stopped")
	}
	s.hurry() // too late, and once more
	if s.last.Stop() {
		t.Error("a timer was started for a channel that has ended")
	}
}
