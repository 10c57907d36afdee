package app

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// address returns where a port is.
func (r *reloadable) address(port string) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.ports[port]}
}

// Who waits for a channel is led where the service leads now, though what it waits for
// is there still, for others.
func TestInletReloadLeadsThoseWhoWait(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		services []offered // beside the one that stays
		want     string    // the letter; "": a reset
	}{
		"elsewhere":                {[]offered{{"1", "db", "y", []int{1}}}, "y"},
		"elsewhere, at a new port": {[]offered{{"3", "db", "y", []int{1}}}, "y"},
		"over other routes":        {[]offered{{"1", "db", "x", []int{1}}}, "x"},
		"nowhere":                  {nil, ""},
		"not by another's port":    {[]offered{{"1", "web", "y", []int{1}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stays := offered{"2", "web", "x", []int{0}}
			r := startReloadable(t, offered{"1", "db", "x", []int{0}}, stays)
			r.stopRelays[0]()
			eventually(t, "there is no path", func() bool { ok, _ := r.in.obs.Ready.Check(); return !ok })
			waiting := dialTCP(t, r.address("1"))
			link := r.in.wanted()[0].(*inletLink)
			eventually(t, "it waits", func() bool { return link.waiting.Load() == 1 })
			r.take(append(tt.services, stays)...)
			if link.isFinished() {
				t.Error("what another service leads to was finished")
			}
			if tt.want == "" {
				wantReset(t, waiting)
				return
			}
			got := make([]byte, 1)
			if _, err := io.ReadFull(waiting, got); err != nil || string(got) != tt.want {
				t.Fatalf("who waited gets %q, %v, want %q", got, err, tt.want)
			}
			wantEcho(t, waiting, "hello")
		})
	}
}

// isFinished reports whether finish was called.
func (l *link) isFinished() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Of several services of one name nobody is led to another than his own.
func TestInletReloadLeadsNobodyAstray(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}}, offered{"2", "db", "y", []int{1}})
	r.stopRelays[0]()
	waiting := dialTCP(t, r.address("1"))
	link := r.in.wanted()[0].(*inletLink)
	eventually(t, "it waits", func() bool { return link.waiting.Load() == 1 })
	r.take(offered{"2", "db", "y", []int{1}}, offered{"3", "web", "x", []int{0}})
	wantReset(t, waiting)
}

// What leads a service's clients to its heir does not depend on what they wait in.
func TestServiceOpenFollowsItsHeir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t) // of which nobody can be reached
		n := &fakeNet{connect: func(context.Context, int) error { return nil }}
		l := n.link(t, 1)
		start(t, l)
		enrolled := make(chan struct{})
		close(enrolled)
		in := &Inlet{base: &base{member: &membership{enrolled: enrolled}}}
		in.connectTimeout.Store(int64(time.Hour))
		services := make([]*inletService, 4)
		for i := range services {
			services[i] = &inletService{upstream: f.b, port: &inletPort{}}
		}
		last := services[3]
		last.upstream, last.port.service = l, last
		services[0].begin()
		opened := make(chan error, 1)
		go func() {
			_, h, err := in.open(t.Context(), services[0], tunnel.Open{Service: "orders-db"})
			if err == nil {
				h.release()
			}
			opened <- err
		}()
		time.Sleep(time.Minute)
		for i, s := range services[1:] {
			in.offering.mu.Lock()
			services[i].succeed(s)
			s.begin()
			in.offering.mu.Unlock()
			if synctest.Wait(); i == 1 && len(opened) > 0 {
				t.Fatalf("who waits is told of heirs that lead to the same: %v", <-opened)
			}
		}
		if err := <-opened; err != nil {
			t.Errorf("who waited got %v, want a stream", err)
		}
		if in.successor(services[0]) != last || in.successor(last) != nil {
			t.Error("the successor is not the last heir")
		}
		last.port.service = nil
		last.succeed(nil)
		if _, _, err := in.open(t.Context(), services[1], tunnel.Open{Service: "orders-db"}); err == nil || !strings.Contains(err.Error(), errWithdrawn.Error()) {
			t.Errorf("where nothing is offered any more: %v", err)
		}
		if _, _, err := services[1].open(t.Context(), tunnel.Open{}); !errors.Is(err, errFinished) {
			t.Errorf("a service that is no more opens: %v", err)
		}
	})
}

// Streams of a service that is gone leave a relay, too, when later settings know another
// way to their outlet.
func TestInletReloadReroutesWhatIsLeft(t *testing.T) {
	t.Parallel()
	other := offered{"2", "web", "y", []int{1}}
	r := startReloadable(t, offered{"1", "db", "x", []int{0}}, other)
	nc := r.open("1", "x")
	r.take(other)
	wantEcho(t, nc, "still here")
	r.take(other, offered{"3", "web", "x", []int{1}})
	eventually(t, "no channel leads over the first relay", func() bool {
		wantEcho(t, nc, "meanwhile")
		return r.relays[0].server.Counts().Joins == 0
	})
	if n := metric(t, r.in.obs, "culvert_channel_path_changes_total", "lost"); n != 0 {
		t.Errorf("channels were without a path %v times", n)
	}
	r.stopRelays[0]()
	wantEcho(t, nc, "still here")
}

// A service's connections count against its limits wherever it is offered, and when it
// is back after it was gone.
func TestInletReloadKeepsLimits(t *testing.T) {
	t.Parallel()
	limited := func(text string) string {
		return strings.ReplaceAll(text, "    service: db\n", "    service: db\n    limits: {connections: 2}\n")
	}
	other := offered{"2", "web", "y", []int{1}}
	r := startReloadable(t, other)
	db := func(port string) string { return limited(r.with(offered{port, "db", "x", []int{0}}, other)) }
	r.takeText(db("1"))
	first, second := r.open("1", "x"), r.open("1", "x")
	wantRefused(t, r.address("1"))
	r.takeText(db("3"))
	wantRefused(t, r.address("3"))
	r.take(other)
	r.takeText(db("1"))
	wantRefused(t, r.address("1"))
	wantEcho(t, first, "still here")
	_ = second.Close()
	eventually(t, "there is a place", func() bool { return r.in.countStreams() == 1 })
	third := r.open("1", "x")
	wantRefused(t, r.address("1"))
	_, _ = first.Close(), third.Close()
	eventually(t, "all have ended", func() bool { return r.in.countStreams() == 0 })
	r.take(other)
	if n := len(r.in.offering.spare); n != 0 {
		t.Errorf("the limits of %d services that have ended are kept", n)
	}
}

// enterAndLeave returns the service that a client gets at a port.
func enterAndLeave(in *Inlet, p *inletPort) *inletService {
	c := in.enter(p)
	c.free = func() {}
	c.vacate()
	c.leave()
	return c.service
}

// A client that is accepted just before its service is taken out counts against the limits
// of the service when that is back, whichever part of the reload it came before.
func TestInletReloadCountsWhoWasJustAccepted(t *testing.T) {
	other := offered{"2", "web", "y", []int{1}}
	r := startReloadable(t, offered{"1", "db", "x", []int{0}}, other)
	load := func(text string) *config.Inlet {
		name := filepath.Join(t.TempDir(), "inlet.yaml")
		replaceFile(t, name, text)
		cfg, err := config.LoadInlet(fileSource(name))
		must(t, err)
		return cfg
	}
	with := load(strings.Replace(r.with(offered{"1", "db", "x", []int{0}}, other), "    service: db\n", "    service: db\n    limits: {connections: 1}\n", 1))
	without := load(r.with(other))
	reload := func(cfg *config.Inlet) { must(t, r.in.reload(cfg, &cfg.Trust)) }
	for when, takeOut := range map[string]func(enter func()){
		"before": func(enter func()) { enter(); reload(without) },
		"meanwhile": func(enter func()) {
			p := r.in.plan(without)
			enter()
			r.in.exchange(p, nil)
		},
	} {
		reload(with)
		services, _ := r.in.offered()
		var c *inletClient
		takeOut(func() { c = r.in.enter(services[0].port) })
		reload(without) // and nothing of it is forgotten later
		reload(with)
		wantRefused(t, r.address("1"))
		c.free = func() {}
		c.vacate()
		c.leave()
		nc := r.open("1", "x")
		wantRefused(t, r.address("1"))
		_ = nc.Close()
		eventually(t, when+": its stream has ended", func() bool { return r.in.countStreams() == 0 })
		reload(without)
		if n := len(r.in.offering.spare); n != 0 {
			t.Errorf("%s: the limits of %d services that have ended are kept", when, n)
		}
	}
}

// A service that has any free port keeps it for as long as it is there, and nobody else
// gets it: its clients would be led to another service.
func TestInletReloadKeepsFreePorts(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"0", "db", "x", []int{0}})
	before := r.in.Addrs()[0].String()
	r.take(offered{"0", "web", "x", []int{0}}, offered{"0", "db", "y", []int{0}})
	if now := r.in.Addrs(); now[1].String() != before || now[0].String() == before {
		t.Errorf("db was at %s; web and db are at %v", before, now)
	}
	r.openAt(r.in.Addrs()[1], "y")
	r.take(offered{"0", "web", "x", []int{0}})
	if now := r.in.Addrs()[0].String(); now == before {
		t.Errorf("web is where db was, at %s", now)
	}
}

// Of several services of one name each keeps the free port that it has, wherever it stands
// among the others, and whatever becomes of them.
func TestInletReloadKeepsFreePortsOfOneName(t *testing.T) {
	t.Parallel()
	x, y := offered{"0", "db", "x", []int{0}}, offered{"0", "db", "y", []int{0}}
	r := startReloadable(t, x, y)
	ports := r.in.Addrs()
	want := func(what string, at ...net.Addr) {
		t.Helper()
		now := r.in.Addrs()
		if len(now) != len(at) {
			t.Fatalf("%s: services are offered at %v", what, now)
		}
		for i, a := range at {
			if a != nil && now[i].String() != a.String() {
				t.Fatalf("%s: %s was offered at %v, and is at %v", what, r.in.Status().Services[i].Outlet, a, now[i])
			}
		}
	}
	r.take(y, x)
	want("they have changed places", ports[1], ports[0])
	r.openAt(ports[0], "x")
	r.openAt(ports[1], "y")
	x.ways = []int{1}
	r.take(x, y)
	want("one has other routes, and they have changed places", ports[0], ports[1])
	r.take(offered{"0", "db", "x", []int{0}}, y, x)
	want("another leads to the same outlet over other routes", nil, ports[1], ports[0])
	r.take(y)
	want("the one behind is alone", ports[1])
	r.openAt(ports[1], "y")
}

// However services of one name and any free port change places, each keeps its own.
func TestPlanKeepsPortsInAnyOrder(t *testing.T) {
	t.Parallel()
	list := []offered{{"0", "db", "x", []int{0}}, {"0", "db", "x", []int{1}}, {"0", "db", "y", []int{0}}, {"0", "web", "y", []int{0}}}
	r := startReloadable(t, list...)
	cfg, err := config.LoadInlet(fileSource(r.name))
	must(t, err)
	now, _ := r.in.offered()
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "order")
		planned := config.Inlet{}
		for _, i := range order {
			planned.Services = append(planned.Services, cfg.Services[i])
		}
		p := r.in.plan(&planned)
		if len(p.opened) > 0 || len(p.closed) > 0 {
			t.Fatalf("in the order %v %d ports are opened and %d closed", order, len(p.opened), len(p.closed))
		}
		for k, i := range order {
			if p.services[k] != now[i] {
				t.Fatalf("in the order %v service %d is not as it was", order, i)
			}
		}
	})
}

// Services that exchange their ports keep their limits, not their ports'.
func TestPlanInherits(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}}, offered{"2", "web", "y", []int{0}})
	limits := func() map[string]*serviceLimits {
		list, _ := r.in.offered()
		byName := map[string]*serviceLimits{}
		for _, s := range list {
			byName[s.Service] = s.bounds
		}
		return byName
	}
	before := limits()
	r.take(offered{"2", "db", "x", []int{0}}, offered{"1", "web", "y", []int{0}})
	now := limits()
	if before["db"] != now["db"] || before["web"] != now["web"] {
		t.Error("a service has other limits than before")
	}
	cfg := config.Inlet{Services: []config.InletService{{Listen: local(1), Service: "cache"}}}
	p := r.in.plan(&cfg)
	if b := p.services[0].bounds; b == now["db"] || b == now["web"] || b.name != "cache" {
		t.Errorf("a new service has the limits of %s", b.name)
	}
}
