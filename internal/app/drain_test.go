package app

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// startStop calls stop and returns a channel that is closed when it returns.
func startStop(stop func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop()
	}()
	return done
}

func stillRuns(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
		t.Errorf("%s stopped while a stream was open", what)
	case <-time.After(200 * time.Millisecond):
	}
}

// An inlet that is told to stop accepts no more, and ends when its streams do.
func TestInletDrains(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{inlet: func(c *config.Inlet) { c.DrainTimeout = patience }})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	done := startStop(sys.stopInlet)
	eventually(t, "no more clients", func() bool {
		late, err := net.Dial("tcp", sys.inlet.Addrs()[0].String())
		if err == nil {
			_ = late.Close()
		}
		return err != nil
	})
	if ok, _ := sys.inlet.obs.Ready.Check(); ok {
		t.Error("ready while stopping")
	}
	wantEcho(t, nc, "still here")
	stillRuns(t, "the inlet", done)
	_ = nc.CloseWrite()
	if _, err := io.ReadAll(nc); err != nil {
		t.Errorf("the stream ends with %v, want a clean end", err)
	}
	<-done
	eventually(t, "the outlet logs the reason", func() bool {
		return len(sys.outletLog.lines(t, map[string]string{"msg": "channel closed", "code": "shutdown"})) == 1
	})
}

// A stream that outlasts the drain time is reset when inlet or outlet stops. A
// relay's end is none of the stream's.
func TestDrainTimeIsBounded(t *testing.T) {
	t.Parallel()
	short := func(c *config.Common) { c.DrainTimeout = 50 * time.Millisecond }
	for _, name := range []string{"inlet", "outlet", "relay"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys := startSystem(t, setup{
				relay: func(c *config.Relay) { short(&c.Common) }, outlet: func(c *config.Outlet) { short(&c.Common) },
				inlet: func(c *config.Inlet) { short(&c.Common) },
			})
			stop := map[string]func(){"inlet": sys.stopInlet, "outlet": sys.stopOutlet, "relay": sys.stopRelay}[name]
			nc := sys.dial(t)
			wantEcho(t, nc, "hello")
			watch := testenv.Start(t)
			stop()
			if took := watch.Took(); took > 5*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if name != "relay" {
				wantReset(t, nc)
				return
			}
			watch = testenv.Start(t)
			sys.stopInlet()
			if took := watch.Took(); took > closeTime+2*time.Second {
				t.Errorf("stopping the inlet without a path took %s", took)
			}
			wantReset(t, nc)
		})
	}
}

// While an outlet drains, its old streams go on and new ones go to another
// instance of the same identity.
func TestOutletDrainsToAnotherInstance(t *testing.T) {
	t.Parallel()
	var oc config.Outlet
	sys := startSystem(t, setup{outlet: func(c *config.Outlet) {
		c.DrainTimeout = patience
		oc = *c
	}, inlet: func(c *config.Inlet) { c.ConnectTimeout = patience }})
	old := sys.dial(t)
	wantEcho(t, old, "hello")
	second, _, _ := startOutlet(t, oc)
	eventually(t, "the second instance is registered", func() bool { return second.countRegistrations() == 1 })

	done := startStop(sys.stopOutlet)
	eventually(t, "the inlet has noticed", func() bool {
		return len(sys.inletLog.lines(t, map[string]string{"msg": "outlet is draining, opening another channel"})) == 1
	})
	if ok, _ := sys.outlet.obs.Ready.Check(); ok {
		t.Error("the outlet is ready while stopping")
	}
	wantEcho(t, sys.dial(t), "to the second")
	if got := len(second.Status().Channels); got != 1 {
		t.Errorf("the second instance has %d channels, want 1", got)
	}
	if got := len(sys.inlet.Status().Channels[0].Finishing); got != 1 {
		t.Errorf("the inlet shows %d finishing channels, want 1", got)
	}
	wantEcho(t, old, "still here")
	stillRuns(t, "the outlet", done)
	_ = old.CloseWrite()
	if _, err := io.ReadAll(old); err != nil {
		t.Errorf("the old stream ends with %v, want a clean end", err)
	}
	<-done
}

// An idle system stops at once, in any order.
func TestIdleStopsAtOnce(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"inlet outlet relay", "outlet relay inlet", "relay inlet outlet"} {
		sys := startSystem(t, setup{outlet: func(c *config.Outlet) { c.DrainTimeout = patience }, inlet: func(c *config.Inlet) { c.DrainTimeout = patience }})
		eventually(t, "ready", func() bool { ok, _ := sys.inlet.obs.Ready.Check(); return ok })
		for name := range strings.FieldsSeq(order) {
			watch := testenv.Start(t)
			map[string]func(){"inlet": sys.stopInlet, "outlet": sys.stopOutlet, "relay": sys.stopRelay}[name]()
			if took := watch.Took(); took > 3*time.Second {
				t.Errorf("%s: stopping the %s took %s", order, name, took)
			}
		}
	}
}

func TestStatusAndReadiness(t *testing.T) {
	t.Parallel()
	admin := func(c *config.Common) { c.Admin, c.Metrics = "127.0.0.1:0", local(0) }
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) { admin(&c.Common) }, outlet: func(c *config.Outlet) { admin(&c.Common) },
		inlet: func(c *config.Inlet) { admin(&c.Common) },
	})
	wantEcho(t, sys.dial(t), "hello")
	var in InletStatus
	getStatus(t, sys.inlet.Endpoints().AdminAddr(), &in)
	switch {
	case in.Identifier != sys.inlet.Identifier().String(), len(in.Services) != 1, len(in.Channels) != 1:
		t.Errorf("inlet: %+v", in)
	case in.Services[0].Streams != 1, in.Services[0].Listen != sys.inlet.Addrs()[0].String(), in.Services[0].Service != "echo":
		t.Errorf("inlet's service: %+v", in.Services[0])
	case in.Channels[0].State != "open", in.Channels[0].Streams != 1, in.Channels[0].Since == nil, in.Channels[0].Route != sys.inlet.allLinks()[0].routes.of(0).String():
		t.Errorf("inlet's channel: %+v", in.Channels[0])
	}
	var out OutletStatus
	getStatus(t, sys.outlet.Endpoints().AdminAddr(), &out)
	switch {
	case out.Identifier != sys.outlet.Identifier().String(), len(out.Services) != 1, len(out.Registrations) != 1, len(out.Channels) != 1:
		t.Errorf("outlet: %+v", out)
	case out.Services[0].Streams != 1, !out.Registrations[0].Registered, out.Channels[0].Peer != in.Identifier, out.Channels[0].Instance != in.Instance, out.Channels[0].Streams != 1:
		t.Errorf("outlet: %+v", out)
	}
	var rel RelayStatus
	getStatus(t, sys.relay.Endpoints().AdminAddr(), &rel)
	switch {
	case rel.Identifier != sys.relay.Identifier().String(), len(rel.Registrations) != 1, len(rel.Joins) != 1, rel.Draining:
		t.Errorf("relay: %+v", rel)
	case rel.Registrations[0].Identifier != out.Identifier, rel.Joins[0].Caller != in.Identifier, rel.Joins[0].Target != out.Identifier:
		t.Errorf("relay: %+v", rel)
	}
	for _, a := range []net.Addr{sys.inlet.Endpoints().MetricsAddr(), sys.outlet.Endpoints().MetricsAddr(), sys.relay.Endpoints().MetricsAddr()} {
		if code, body := get(t, a, "/readyz"); code != http.StatusOK {
			t.Errorf("readyz: %d %s", code, body)
		}
		if code, body := get(t, a, "/metrics"); code != http.StatusOK || !strings.Contains(body, "culvert_channel_handshake_failures_total") && !strings.Contains(body, "culvert_") {
			t.Errorf("metrics: %d %s", code, body)
		}
		if code, _ := get(t, a, "/status"); code != http.StatusNotFound {
			t.Errorf("the metrics server answers /status with %d", code)
		}
	}
}

func get(t *testing.T, a net.Addr, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + a.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func getStatus(t *testing.T, a net.Addr, into any) {
	t.Helper()
	code, body := get(t, a, "/status")
	if code != http.StatusOK {
		t.Fatalf("status: %d %s", code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("status %s: %v", body, err)
	}
}

// What cannot work is an error before anything runs, and names the setting.
func TestFaultsAtTheStart(t *testing.T) {
	key, id := newIdentity(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	way := route.Route{{Host: "127.0.0.1", Port: 1, Identifier: id}}
	inlet := func(c config.Inlet) error {
		o, _ := newObs(t, "inlet")
		in, err := NewInlet(&c, o)
		if err != nil {
			return err
		}
		return in.Run(t.Context())
	}
	outlet := func(c config.Outlet) error {
		o, _ := newObs(t, "outlet")
		out, err := NewOutlet(&c, o)
		if err != nil {
			return err
		}
		return out.Run(t.Context())
	}
	relay := func(c config.Relay) error {
		o, _ := newObs(t, "relay")
		r, err := NewRelay(&c, o)
		if err != nil {
			return err
		}
		return r.Run(t.Context())
	}
	common := config.Common{Identity: key}
	service := config.InletService{Listen: local(0), Service: "echo", Outlet: id, Routes: []route.Route{way}}
	busy := service
	busy.Listen = local(portOf(taken.Addr()))
	offered := []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id)}}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"inlet: no key", inlet(config.Inlet{Common: config.Common{Identity: "/nowhere/inlet.key"}, Services: []config.InletService{service}}), "identity: "},
		{"inlet: no services", inlet(config.Inlet{Common: common}), "services: "},
		{"inlet: port taken", inlet(config.Inlet{Common: common, Services: []config.InletService{service, busy}}), "address already in use: services[1].listen"},
		{"inlet: metrics port taken", inlet(config.Inlet{Common: config.Common{Identity: key, Metrics: busy.Listen}, Services: []config.InletService{service}}), "address already in use"},
		{"outlet: no services", outlet(config.Outlet{Common: common, Relays: []route.Route{way}}), "services: "},
		{"outlet: no way in", outlet(config.Outlet{Common: common, Services: offered}), "relays: "},
		{"outlet: a name twice", outlet(config.Outlet{Common: common, Relays: []route.Route{way}, Services: append(offered, offered...)}), "services[1].name: "},
		{"outlet: port taken", outlet(config.Outlet{Common: common, Listen: []config.Address{busy.Listen}, Services: offered}), "address already in use: listen[0]"},
		{"relay: no address", relay(config.Relay{Common: common}), "listen: "},
		{"relay: port taken", relay(config.Relay{Common: common, Listen: []config.Address{local(0), busy.Listen}}), "address already in use: listen[1]"},
	}
	for _, tt := range tests {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: got %v, want it to hold %q", tt.name, tt.err, tt.want)
		}
	}
}

// A relay that stops because it cannot accept any more says so to whoever
// started it.
func TestRelayListenerFails(t *testing.T) {
	key, _ := newIdentity(t)
	o, _ := newObs(t, "relay")
	r, err := NewRelay(&config.Relay{Common: config.Common{Identity: key}, Listen: []config.Address{local(0), local(0)}}, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.lns[1].Close()
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), r.lns[1].Addr().String()) {
		t.Errorf("got %v, want an error that names the listener", err)
	}
}
