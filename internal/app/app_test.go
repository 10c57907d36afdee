package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A system is a relay, an outlet and an inlet, running.
type system struct {
	relay  *Relay
	outlet *Outlet
	inlet  *Inlet

	relayLog, outletLog, inletLog    *logBuffer
	stopRelay, stopOutlet, stopInlet func()
}

// A setup says what differs from a system whose inlet may use the service
// "echo" through the relay.
type setup struct {
	target  config.Address // of the service; zero: an echo server
	service string         // that the inlet asks for; "": echo
	relay   func(*config.Relay)
	outlet  func(*config.Outlet)
	inlet   func(*config.Inlet)
	dial    dialFunc      // how the outlet reaches the target; nil: really
	before  func(*Outlet) // called before the outlet runs; nil: nothing

	beforeRelay func(*Relay) // called before the relay runs; nil: nothing
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

func startRelay(t *testing.T, cfg config.Relay, change ...func(*Relay)) (*Relay, *logBuffer, func()) {
	t.Helper()
	o, log := newObs(t, "relay")
	r, err := NewRelay(&cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	return r, log, run(t, r.Run)
}

func startOutlet(t *testing.T, cfg config.Outlet, change ...func(*Outlet)) (*Outlet, *logBuffer, func()) {
	t.Helper()
	o, log := newObs(t, "outlet")
	out, err := NewOutlet(&cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(out)
	}
	return out, log, run(t, out.Run)
}

func startInlet(t *testing.T, cfg config.Inlet) (*Inlet, *logBuffer, func()) {
	t.Helper()
	o, log := newObs(t, "inlet")
	in, err := NewInlet(&cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return in, log, run(t, in.Run)
}

// startSystem starts all three. Clients of the inlet wait for its channel.
func startSystem(t *testing.T, s setup) *system {
	t.Helper()
	sys := &system{}
	relayKey, relayID := newIdentity(t)
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	if s.target.IsZero() {
		s.target = serveTCP(t, echo)
	}
	if s.service == "" {
		s.service = "echo"
	}
	rc := config.Relay{
		Common: config.Common{Identity: relayKey, DrainTimeout: time.Second}, Listen: []config.Address{local(0)},
		Register: policy.List(outletID), Connect: policy.List(inletID),
	}
	if s.relay != nil {
		s.relay(&rc)
	}
	sys.relay, sys.relayLog, sys.stopRelay = startRelay(t, rc, func(r *Relay) {
		if s.beforeRelay != nil {
			s.beforeRelay(r)
		}
	})
	way := routeTo(sys.relay.Addrs()[0], relayID)
	oc := config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Second}, Relays: []route.Route{way},
		Services:    []config.OutletService{{Name: "echo", Target: s.target, Allow: policy.List(inletID)}},
		DialTimeout: patience,
	}
	if s.outlet != nil {
		s.outlet(&oc)
	}
	sys.outlet, sys.outletLog, sys.stopOutlet = startOutlet(t, oc, func(out *Outlet) {
		if s.dial != nil {
			out.dial = s.dial
		}
		if s.before != nil {
			s.before(out)
		}
	})
	ic := config.Inlet{
		Common:         config.Common{Identity: inletKey, DrainTimeout: time.Second},
		Services:       []config.InletService{{Listen: local(0), Service: s.service, Outlet: outletID, Routes: []route.Route{way}}},
		ConnectTimeout: patience,
	}
	if s.inlet != nil {
		s.inlet(&ic)
	}
	sys.inlet, sys.inletLog, sys.stopInlet = startInlet(t, ic)
	return sys
}

func (sys *system) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	return dialTCP(t, sys.inlet.Addrs()[0])
}

func TestBytesThroughARelay(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")

	// One direction ends, the other goes on.
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = nc.Write(data)
		_ = nc.CloseWrite()
	}()
	got, err := io.ReadAll(nc)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("echo of %d bytes: got %d, %v, equal %v", len(data), len(got), err, bytes.Equal(got, data))
	}
	total := float64(len(data) + len("hello"))
	for _, want := range []struct {
		o       *obs.Obs
		metrics string
	}{
		{sys.inlet.obs, "culvert_inlet"}, {sys.outlet.obs, "culvert_outlet"},
	} {
		eventually(t, want.metrics+" counts the stream", func() bool {
			return metric(t, want.o, want.metrics+"_streams_total", "echo", "ok") == 1
		})
		for _, direction := range []string{toService, toClient} {
			if got := metric(t, want.o, want.metrics+"_bytes_total", "echo", direction); got != total {
				t.Errorf("%s_bytes_total %s: %v, want %v", want.metrics, direction, got, total)
			}
		}
		if got := metric(t, want.o, want.metrics+"_streams_active", "echo"); got != 0 {
			t.Errorf("%s_streams_active: %v, want 0", want.metrics, got)
		}
		if got := metric(t, want.o, want.metrics+"_channels"); got != 1 {
			t.Errorf("%s_channels: %v, want 1", want.metrics, got)
		}
	}
	for _, direction := range []string{"to_target", "to_caller"} { // counted when they have been moved
		eventually(t, "the relay has counted the bytes "+direction, func() bool {
			return metric(t, sys.relay.obs, "culvert_relay_bytes_total", direction) >= total
		})
	}
	if got := metric(t, sys.relay.obs, "culvert_relay_joins_total"); got < 1 {
		t.Errorf("culvert_relay_joins_total: %v, want at least 1", got)
	}
}

// Resets pass through, each named for the side that made it.
func TestResetsPassThrough(t *testing.T) {
	t.Parallel()
	t.Run("by the target", func(t *testing.T) {
		t.Parallel()
		sys := startSystem(t, setup{target: serveTCP(t, func(nc *net.TCPConn) {
			_, _ = nc.Read(make([]byte, 5))
			_ = nc.SetLinger(0)
		})})
		nc := sys.dial(t)
		if _, err := io.WriteString(nc, "hello"); err != nil {
			t.Fatal(err)
		}
		wantReset(t, nc)
		wantEnds(t, sys, "target_reset")
	})
	t.Run("by the client", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		sys := startSystem(t, setup{target: serveTCP(t, func(nc *net.TCPConn) {
			_, err := io.Copy(nc, nc)
			seen <- err
		})})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		_ = nc.SetLinger(0)
		_ = nc.Close()
		select {
		case err := <-seen:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("target read %v, want a reset", err)
			}
		case <-time.After(patience):
			t.Fatal("the target sees nothing")
		}
		wantEnds(t, sys, "client_reset")
	})
}

func wantEnds(t *testing.T, sys *system, code string) {
	t.Helper()
	for side, log := range map[string]*logBuffer{"inlet": sys.inletLog, "outlet": sys.outletLog} {
		eventually(t, side+" logs "+code, func() bool {
			return len(log.lines(t, map[string]string{"msg": "stream ended early", "code": code, "level": "info"})) == 1
		})
	}
}

// The relay dies under an open stream: the inlet is not ready, and once a relay
// is back the stream goes on.
func TestRelayDiesAndComesBack(t *testing.T) {
	t.Parallel()
	relayKey, relayID := newIdentity(t)
	port := testenv.Port(t)
	var rc config.Relay
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) {
			c.Identity, c.Listen, c.DrainTimeout = relayKey, []config.Address{local(port)}, time.Millisecond
			rc = *c
		}, outlet: func(c *config.Outlet) { c.Relays = []route.Route{withIdentity(c.Relays[0], relayID)} },
		inlet: func(c *config.Inlet) {
			c.Services[0].Routes = []route.Route{withIdentity(c.Services[0].Routes[0], relayID)}
			c.ConnectTimeout = patience
		},
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopRelay()
	eventually(t, "not ready", func() bool { ok, _ := sys.inlet.obs.Ready.Check(); return !ok })
	eventually(t, "a channel that resumes, with its stream", func() bool { // the route is told of a moment after the path
		st := sys.inlet.Status().Channels[0]
		return st.State == "resuming" && !st.Path.Up && st.Path.Error != "" && st.Streams == 1 && st.Routes[0].State == routeFailed
	})

	waiting := sys.dial(t) // before the relay is back
	startRelay(t, rc)
	wantEcho(t, waiting, "here again")
	wantEcho(t, nc, "still here")
	for side, o := range map[string]*obs.Obs{"inlet": sys.inlet.obs, "outlet": sys.outlet.obs} {
		if got := metric(t, o, "culvert_channel_path_changes_total", "lost"); got < 1 {
			t.Errorf("%s: culvert_channel_path_changes_total: %v, want at least 1", side, got)
		}
		if got := metric(t, o, "culvert_channel_path_losses_total", "ended"); got < 1 {
			t.Errorf("%s: culvert_channel_path_losses_total: %v, want at least 1", side, got)
		}
	}
	for side, log := range map[string]*logBuffer{"inlet": sys.inletLog, "outlet": sys.outletLog} {
		for _, msg := range []string{"path lost, streams wait for another", "path changed"} {
			if got := len(log.lines(t, map[string]string{"msg": msg, "level": "info"})); got < 1 {
				t.Errorf("%s logs %q %d times, want it once a change", side, msg, got)
			}
		}
	}
	if ok, states := sys.inlet.obs.Ready.Check(); !ok {
		t.Errorf("not ready: %v", states)
	}
}

// The relay stays away: when the grace time is over the streams are reset on
// both sides, and a new channel works once there is a relay again.
func TestRelayStaysAway(t *testing.T) {
	t.Parallel()
	relayKey, relayID := newIdentity(t)
	port := testenv.Port(t)
	var rc config.Relay
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) {
			c.Identity, c.Listen, c.DrainTimeout = relayKey, []config.Address{local(port)}, time.Millisecond
			rc = *c
		}, outlet: func(c *config.Outlet) {
			c.Relays, c.Grace = []route.Route{withIdentity(c.Relays[0], relayID)}, 300*time.Millisecond
		},
		inlet: func(c *config.Inlet) {
			c.Services[0].Routes = []route.Route{withIdentity(c.Services[0].Routes[0], relayID)}
			c.ConnectTimeout, c.Grace = patience, 300*time.Millisecond
		},
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopRelay()
	wantReset(t, nc)
	wantEnds(t, sys, "channel_lost")
	for command, o := range map[string]*base{"inlet": sys.inlet.base, "outlet": sys.outlet.base} {
		eventually(t, command+" counts the channel as lost for want of a path, and as waiting no more", func() bool {
			prefix := "culvert_" + command + "_channels_"
			return metric(t, o.obs, prefix+"lost_total", "timeout") == 1 && metric(t, o.obs, prefix+"detached") == 0 && metric(t, o.obs, prefix+"detached_seconds") == 0
		})
	}
	waiting := sys.dial(t)
	startRelay(t, rc)
	wantEcho(t, waiting, "here again")
}

// A relay that drains is left before it ends: the channel moves to the other
// relay's route, and is never without a path.
func TestChannelsMoveFromADrainingRelay(t *testing.T) {
	t.Parallel()
	otherKey, otherID := newIdentity(t)
	port := testenv.Port(t)
	other := routeTo(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, otherID)
	var ic config.Inlet
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) {
			c.DrainTimeout = patience
			rc := *c
			rc.Identity, rc.Listen = otherKey, []config.Address{local(port)}
			startRelay(t, rc)
		},
		outlet: func(c *config.Outlet) { c.Relays = append(c.Relays, other) },
		inlet: func(c *config.Inlet) {
			c.Services[0].Routes = append(c.Services[0].Routes, other)
			ic = *c
		},
	})
	sys.stopInlet()
	eventually(t, "both registrations", func() bool { return sys.outlet.countRegistrations() == 2 })
	sys.inlet, sys.inletLog, sys.stopInlet = startInlet(t, ic) // not before: the first route is to be the one
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	done := startStop(sys.stopRelay)
	eventually(t, "the channel has moved", func() bool {
		st := sys.inlet.Status().Channels[0]
		return st.State == "open" && st.Route == other.String() && st.Routes[1].State == routeUsed
	})
	wantEcho(t, nc, "still here")
	<-done
	wantEcho(t, nc, "and here")
	for side, o := range map[string]*obs.Obs{"inlet": sys.inlet.obs, "outlet": sys.outlet.obs} {
		if got := metric(t, o, "culvert_channel_path_losses_total", "ended"); got != 0 {
			t.Errorf("%s: %v paths were lost, want none", side, got)
		}
	}
	if got := metric(t, sys.inlet.obs, "culvert_channel_path_changes_total", "asked"); got != 1 {
		t.Errorf("culvert_channel_path_changes_total: %v asked, want 1", got)
	}
	if got := metric(t, sys.outlet.obs, "culvert_channel_path_changes_total", "moved"); got != 1 {
		t.Errorf("culvert_channel_path_changes_total: %v moved, want 1", got)
	}
}

// An outlet may listen itself: then there is no relay on the route.
func TestDirectRoute(t *testing.T) {
	t.Parallel()
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	out, _, _ := startOutlet(t, config.Outlet{
		Common: config.Common{Identity: outletKey}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: serveTCP(t, echo), Allow: policy.List(inletID)}},
	})
	in, _, _ := startInlet(t, config.Inlet{
		Common:   config.Common{Identity: inletKey},
		Services: []config.InletService{{Listen: local(0), Service: "echo", Outlet: outletID, Routes: []route.Route{routeTo(out.Addrs()[0], outletID)}}},
	})
	wantEcho(t, dialTCP(t, in.Addrs()[0]), "hello")
	if ok, states := out.obs.Ready.Check(); !ok {
		t.Errorf("outlet not ready: %v", states)
	}
}

// Services with the same outlet and routes share a channel.
func TestServicesShareAChannel(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{
		outlet: func(c *config.Outlet) {
			second := c.Services[0]
			second.Name = "second"
			c.Services = append(c.Services, second)
		},
		inlet: func(c *config.Inlet) {
			second := c.Services[0]
			second.Service = "second"
			c.Services = append(c.Services, second)
		},
	})
	for _, a := range sys.inlet.Addrs() {
		wantEcho(t, dialTCP(t, a), "hello")
	}
	if got := len(sys.outlet.Status().Channels); got != 1 {
		t.Errorf("%d channels, want 1", got)
	}
}

// A route that does not work is passed over for the next.
func TestFailover(t *testing.T) {
	t.Parallel()
	dead := testenv.Port(t)
	sys := startSystem(t, setup{inlet: func(c *config.Inlet) {
		way := c.Services[0].Routes[0]
		c.Services[0].Routes = []route.Route{withPort(way, dead), way}
	}})
	wantEcho(t, sys.dial(t), "hello")
	st := sys.inlet.Status().Channels[0]
	if st.Route != st.Routes[1].Route || len(st.Routes) != 2 {
		t.Errorf("channel over %s of %v, want the second", st.Route, st.Routes)
	}
	if got := metric(t, sys.inlet.obs, "culvert_inlet_connects_total", "unreachable"); got < 1 {
		t.Errorf("connects_total unreachable: %v, want at least 1", got)
	}
}

// Both ends come through the first relay to the second.
func TestTwoRelays(t *testing.T) {
	t.Parallel()
	var first *Relay
	near := testenv.Port(t)
	sys := startSystem(t, setup{
		outlet: func(c *config.Outlet) {
			far := c.Relays[0]
			nearKey, nearID := newIdentity(t)
			first, _, _ = startRelay(t, config.Relay{
				Common: config.Common{Identity: nearKey, DrainTimeout: time.Second}, Listen: []config.Address{local(near)},
				Register: policy.List(identityOf(t, c.Identity)), Connect: c.Services[0].Allow,
				Extend: config.Extend{To: []config.Address{{Host: far[0].Host, Port: far[0].Port}}},
			})
			c.Relays = []route.Route{{{Host: "127.0.0.1", Port: uint16(near), Identifier: nearID}, far[0]}}
		},
		inlet: func(c *config.Inlet) {
			far := c.Services[0].Routes[0]
			c.Services[0].Routes = []route.Route{{{Host: "127.0.0.1", Port: uint16(near), Identifier: first.Identifier()}, far[0]}}
			c.ConnectTimeout = patience
		},
	})
	wantEcho(t, sys.dial(t), "hello")
	extends := 0
	for _, j := range first.Status().Joins {
		if j.Request == "extend" {
			extends++
		}
	}
	if extends < 2 {
		t.Errorf("%d joins to the second relay, want the inlet's and the outlet's", extends)
	}
}

func identityOf(t *testing.T, file string) identity.Identifier {
	t.Helper()
	i, err := identity.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return i.Identifier()
}
