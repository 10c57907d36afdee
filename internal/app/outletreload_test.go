package app

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// An outlet that has its relays from a file, and an inlet that knows both.
type relisted struct {
	*settingsFile
	out    *Outlet
	in     *Inlet
	relays [2]*Relay
	ways   [2]route.Route

	stopOut func()
}

func startRelisted(t *testing.T, first ...int) *relisted {
	t.Helper()
	r := &relisted{}
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	for i := range r.relays {
		key, id := newIdentity(t)
		r.relays[i], _, _ = startRelay(t, config.Relay{
			Common: config.Common{Identity: key, DrainTimeout: 100 * time.Millisecond}, Listen: []config.Address{local(0)},
			Register: policy.List(outletID), Connect: policy.List(inletID),
		})
		r.ways[i] = routeTo(r.relays[i].Addrs()[0], id)
	}
	r.settingsFile = &settingsFile{t: t, name: filepath.Join(t.TempDir(), "outlet.yaml"), b: func() *base { return r.out.base }}
	r.text = fmt.Sprintf("identity: %s\nservices:\n  - name: echo\n    target: tcp://%s\n    allow: [%s]\ndrain_timeout: 1s\nrelays: []\n", outletKey, serveTCP(t, echo), inletID)
	r.list(first...)
	replaceFile(t, r.name, r.text)
	cfg, err := config.LoadOutlet(fileSource(r.name))
	must(t, err)
	o, log := newObs(t, "outlet")
	r.settingsFile.log = func() *logBuffer { return log }
	r.out, err = NewOutlet(cfg, o)
	must(t, err)
	r.out.Follow(func() (*config.Outlet, error) { return config.LoadOutlet(fileSource(r.name)) })
	r.stopOut = run(t, r.out.Run)
	r.in, _, _ = startInlet(t, config.Inlet{
		Common:         config.Common{Identity: inletKey, DrainTimeout: time.Second},
		Services:       []config.InletService{{Listen: local(0), Service: "echo", Outlet: outletID, Routes: r.ways[:]}},
		ConnectTimeout: patience,
	})
	return r
}

// list makes these relays the text's.
func (r *relisted) list(relays ...int) {
	var ways []route.Route
	for _, i := range relays {
		ways = append(ways, r.ways[i])
	}
	r.listRoutes(ways...)
}

func (r *relisted) listRoutes(routes ...route.Route) {
	var ways []string
	for _, way := range routes {
		ways = append(ways, fmt.Sprintf("%q", way))
	}
	r.text = r.text[:strings.Index(r.text, "relays: ")] + "relays: [" + strings.Join(ways, ", ") + "]\n"
}

// take gives the outlet other relays, and waits until they hold.
func (r *relisted) take(relays ...int) {
	r.t.Helper()
	r.list(relays...)
	r.change("services:", "services:")
}

// takeDead gives the outlet a relay that there is not.
func (r *relisted) takeDead() {
	r.t.Helper()
	_, id := newIdentity(r.t)
	r.listRoutes(route.Route{{Host: "127.0.0.1", Port: uint16(testenv.Port(r.t)), Identifier: id}})
	r.change("services:", "services:")
}

func (r *relisted) registrations(relay int) int { return len(r.relays[relay].Status().Registrations) }

// An outlet registers at a relay that is listed now, and leaves one that is listed no
// more when the inlets have made other paths: no stream notices.
func TestOutletReloadsRelays(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0)
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	r.take(0, 1)
	eventually(t, "it is registered at both", func() bool { return r.registrations(0) == 1 && r.registrations(1) == 1 })
	r.take(1)
	eventually(t, "the path leads over the second relay", func() bool {
		wantEcho(t, nc, "meanwhile")
		return r.relays[0].server.Counts().Joins == 0 && r.relays[1].server.Counts().Joins == 1
	})
	eventually(t, "the first relay is left", func() bool { return r.registrations(0) == 0 })
	if st := r.out.Status().Registrations; len(st) != 1 || st[0].Route != r.ways[1].String() {
		t.Errorf("the status has %+v", st)
	}
	if n := metric(t, r.in.obs, "culvert_channel_path_changes_total", "lost"); n != 0 {
		t.Errorf("channels were without a path %v times", n)
	}
	wantEcho(t, nc, "still here")
	wantEcho(t, dialTCP(t, r.in.Addrs()[0]), "new")
	if ok, states := r.out.obs.Ready.Check(); !ok {
		t.Errorf("not ready: %+v", states)
	}
	if got := metric(t, r.out.obs, "culvert_config_file_in_use"); got != 1 {
		t.Errorf("in use: %v, want that nothing waits for a restart", got)
	}
}

// A relay that is put back while it is being left is registered at once, by one agent.
func TestOutletReloadPutsARelayBack(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0, 1)
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	for range 5 {
		r.take(1)
		r.take(0, 1)
	}
	eventually(t, "it is registered at both, and drains at none", func() bool {
		regs := append(r.relays[0].Status().Registrations, r.relays[1].Status().Registrations...)
		return len(regs) == 2 && !regs[0].Draining && !regs[1].Draining
	})
	time.Sleep(2 * r.out.drainTimeout()) // nobody is to take the registration away later
	for i := range r.relays {
		if n := r.registrations(i); n != 1 {
			t.Errorf("%d registrations at relay %d, want 1", n, i)
		}
	}
	wantEcho(t, nc, "still here")
}

// Time-outs and limits that are settings of their own need no restart.
func TestReloadOfTimesAndLimits(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	f.outletFile.change("drain_timeout: 1s", "drain_timeout: 3s\ndial_timeout: 2s\nlimits: {handshakes_per_second: 7}")
	f.relayFile.change("drain_timeout: 1s", "drain_timeout: 4s")
	if got := f.outlet.drainTimeout(); got != 3*time.Second {
		t.Errorf("the outlet's drain time is %s", got)
	}
	if got := f.relay.drainTimeout(); got != 4*time.Second {
		t.Errorf("the relay's drain time is %s", got)
	}
	if got := time.Duration(f.outlet.dialTimeout.Load()); got != 2*time.Second {
		t.Errorf("a target is dialled for %s", got)
	}
	if limit, burst := f.outlet.rate.Limit(), f.outlet.rate.Burst(); limit != 7 || burst != 7 {
		t.Errorf("%v handshakes a second, %d at once", limit, burst)
	}
	for _, b := range []*base{f.outlet.base, f.relay.base} {
		if got := metric(t, b.obs, "culvert_config_file_in_use"); got != 1 {
			t.Errorf("in use: %v, want that nothing waits for a restart", got)
		}
	}
	wantEcho(t, f.dialService(0), "hello")
}

// Inlets are asked to leave a relay when there is another one to go to, not before:
// relays can be exchanged in one step.
func TestOutletReloadExchangesRelays(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0)
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	for _, to := range []int{1, 0, 1} {
		r.take(to)
		eventually(t, "the path leads over the other relay", func() bool {
			wantEcho(t, nc, "meanwhile")
			return r.relays[to].server.Counts().Joins == 1 && r.relays[1-to].server.Counts().Joins == 0
		})
	}
	if n := metric(t, r.in.obs, "culvert_channel_path_changes_total", "lost"); n != 0 {
		t.Errorf("channels were without a path %v times", n)
	}
}

// A relay that is being left hears at once that the outlet stops.
func TestOutletStopsWhileItLeavesARelay(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0)
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	r.change("drain_timeout: 1s", "drain_timeout: 1m")
	r.takeDead() // to which there is no way: the other one is not left yet
	if regs := r.relays[0].Status().Registrations; len(regs) != 1 || regs[0].Draining {
		t.Fatalf("registrations at the relay that is being left: %+v", regs)
	}
	stopped := startStop(r.stopOut)
	within(t, patience/2, "the relay hears of the end", func() bool { // not when the drain time is over
		regs := r.relays[0].Status().Registrations
		return len(regs) == 1 && regs[0].Draining
	})
	_ = nc.Close()
	<-stopped
}

// Inlets are not asked to leave a relay that is listed again.
func TestOutletReloadKeepsAnInlet(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0)
	r.change("drain_timeout: 1s", "drain_timeout: 1m") // longer than it is listed no more
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	for range 3 {
		r.takeDead()
		r.take(0)
		eventually(t, "it is registered again", func() bool {
			regs := r.relays[0].Status().Registrations
			return len(regs) == 1 && !regs[0].Draining
		})
		for range 20 { // in which an inlet that is asked has made another path
			wantEcho(t, nc, "still here")
			if n := metric(t, r.in.obs, "culvert_channel_path_changes_total", "asked"); n != 0 {
				t.Fatalf("the inlet was asked to make another path %v times", n)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Nobody is asked off the route of an agent that has ended.
func TestAskAway(t *testing.T) {
	t.Parallel()
	r := startRelisted(t, 0)
	nc := dialTCP(t, r.in.Addrs()[0])
	wantEcho(t, nc, "hello")
	a := r.out.agents.all()[0]
	if !r.out.askAway(a) {
		t.Error("no inlet is asked off the route, by which one has come")
	}
	a.stop()
	if r.out.askAway(a) {
		t.Error("inlets are asked off a route whose agent has ended")
	}
	wantEcho(t, nc, "still here")
}
