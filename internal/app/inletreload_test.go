package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
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

// A reloadable is an inlet that has its settings from a file, two relays, and two
// outlets, "x" and "y", registered at both, each with the services "db" and "web".
// Each service says the outlet's letter and then echoes.
type reloadable struct {
	*settingsFile
	in         *Inlet
	inletLog   *logBuffer
	stop       func() // the inlet
	relays     [2]*Relay
	stopRelays [2]func()
	ways       [2]route.Route
	outlets    map[string]identity.Identifier
	ports      map[string]int
}

// offered is what the inlet's file says of one service.
type offered struct {
	port, service, outlet string // of any free port: "0"
	ways                  []int  // of relays, best first
}

func startReloadable(t *testing.T, services ...offered) *reloadable {
	t.Helper()
	return startReloadableWith(t, func(*reloadable) {}, services...)
}

// startReloadableWith is startReloadable that calls before when all is there but what the
// inlet listens at.
func startReloadableWith(t *testing.T, before func(*reloadable), services ...offered) *reloadable {
	t.Helper()
	r := &reloadable{outlets: map[string]identity.Identifier{}, ports: map[string]int{}}
	inletKey, inletID := newIdentity(t)
	keys := map[string]string{}
	for _, letter := range []string{"x", "y"} {
		keys[letter], r.outlets[letter] = newIdentity(t)
	}
	for i := range r.relays {
		key, id := newIdentity(t)
		r.relays[i], _, r.stopRelays[i] = startRelay(t, config.Relay{
			Common: config.Common{Identity: key, DrainTimeout: 100 * time.Millisecond}, Listen: []config.Address{local(0)},
			Register: policy.List(r.outlets["x"], r.outlets["y"]), Connect: policy.List(inletID),
		})
		r.ways[i] = routeTo(r.relays[i].Addrs()[0], id)
	}
	for letter, key := range keys {
		target := serveTCP(t, named(letter))
		oc := config.Outlet{Common: config.Common{Identity: key, DrainTimeout: time.Second}, Relays: r.ways[:]}
		for _, name := range []string{"db", "web"} {
			oc.Services = append(oc.Services, config.OutletService{Name: name, Target: target, Allow: policy.List(inletID)})
		}
		startOutlet(t, oc)
	}
	r.settingsFile = &settingsFile{t: t, name: filepath.Join(t.TempDir(), "inlet.yaml"), b: func() *base { return r.in.base }, log: func() *logBuffer { return r.inletLog }}
	r.text = fmt.Sprintf("identity: %s\ndrain_timeout: 5s\nconnect_timeout: 1m\nlog_level: debug\nsandbox: off\n", inletKey)
	text := r.with(services...)
	replaceFile(t, r.name, text)
	cfg, err := config.LoadInlet(fileSource(r.name))
	must(t, err)
	var o *obs.Obs
	o, r.inletLog = newObs(t, "inlet")
	r.in, err = NewInlet(cfg, o)
	must(t, err)
	r.in.Follow(func() (*config.Inlet, error) { return config.LoadInlet(fileSource(r.name)) })
	before(r)
	must(t, r.in.Listen(t.Context()))
	r.stop = run(t, r.in.Run)
	return r
}

// with returns the file's text with these services.
func (r *reloadable) with(services ...offered) string {
	r.t.Helper()
	var b strings.Builder
	b.WriteString(r.text + "services:\n")
	for _, s := range services {
		if s.port != "0" && r.ports[s.port] == 0 {
			r.ports[s.port] = testenv.Port(r.t)
		}
		var ways []string
		for _, i := range s.ways {
			ways = append(ways, fmt.Sprintf("%q", r.ways[i]))
		}
		fmt.Fprintf(&b, "  - listen: tcp://127.0.0.1:%d\n    service: %s\n    outlet: %s\n    routes: [%s]\n", r.ports[s.port], s.service, r.outlets[s.outlet], strings.Join(ways, ", "))
	}
	return b.String()
}

// take gives the inlet these services, and waits until they hold.
func (r *reloadable) take(services ...offered) {
	r.t.Helper()
	r.takeText(r.with(services...))
}

// takeText gives the inlet a file, and waits until it holds.
func (r *reloadable) takeText(text string) {
	r.t.Helper()
	before := metric(r.t, r.in.obs, "culvert_config_reloads_total", "ok")
	r.write(text)
	eventually(r.t, "the settings hold", func() bool { return metric(r.t, r.in.obs, "culvert_config_reloads_total", "ok") > before })
}

// open opens a stream at a port, and wants the letter of whom it leads to.
func (r *reloadable) open(port, letter string) *net.TCPConn {
	r.t.Helper()
	return r.openAt(r.address(port), letter)
}

// openAt is open for an address.
func (r *reloadable) openAt(a net.Addr, letter string) *net.TCPConn {
	r.t.Helper()
	nc := dialTCP(r.t, a)
	got := make([]byte, 1)
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != letter {
		r.t.Fatalf("%s leads to %q, %v, want %s", a, got, err, letter)
	}
	return nc
}

// wantClosed wants nobody to listen at a port.
func (r *reloadable) wantClosed(port string) {
	r.t.Helper()
	nc, err := net.Dial("tcp", local(r.ports[port]).String())
	if !errors.Is(err, syscall.ECONNREFUSED) {
		r.t.Errorf("port %s: %v, want a refusal", port, err)
	}
	if err == nil {
		_ = nc.Close()
	}
}

// series returns how many series the inlet shows of a service's name.
func (r *reloadable) series(service string) (n int) {
	r.t.Helper()
	families, err := r.in.obs.Registry.Gather()
	must(r.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "service" && l.GetValue() == service {
					n++
				}
			}
		}
	}
	return n
}

// checks returns the names of the readiness checks.
func (r *reloadable) checks() string {
	_, states := r.in.obs.Ready.Check()
	var names []string
	for _, s := range states {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// A service that is gone takes no clients, and those that it has go on; one that is new
// is there. What nobody uses any more is not there any more.
func TestInletReloadsServices(t *testing.T) {
	t.Parallel()
	db, web := offered{"1", "db", "x", []int{0}}, offered{"2", "web", "y", []int{0}}
	r := startReloadable(t, db)
	old := r.open("1", "x")
	r.take(db, web)
	second := r.open("2", "y")
	if got := r.checks(); got != "service/db service/web" {
		t.Errorf("the checks are %s", got)
	}
	r.take(web)
	r.wantClosed("1")
	wantEcho(t, old, "still here")
	wantEcho(t, second, "still here")
	st := r.in.Status()
	if len(st.Services) != 1 || st.Services[0].Service != "web" || st.Services[0].Listen != local(r.ports["2"]).String() || len(st.Channels) != 2 {
		t.Errorf("the status has %+v", st)
	}
	if got := r.checks(); got != "service/web" {
		t.Errorf("the checks are %s", got)
	}
	if r.series("db") == 0 || metric(t, r.in.obs, "culvert_inlet_streams_active", "db") != 1 {
		t.Error("a stream of the service that is gone is counted no more")
	}
	if n := r.in.countStreams(); n != 2 {
		t.Errorf("%d streams are counted, want 2", n)
	}
	_ = old.Close()
	eventually(t, "the last channel to the outlet is closed", func() bool { return len(r.in.allLinks()) == 1 && r.in.countChannels() == 1 })
	eventually(t, "its metrics are shown no more", func() bool { return r.series("db") == 0 })
	r.take(db, web)
	wantEcho(t, r.open("1", "x"), "back")
	if metric(t, r.in.obs, "culvert_inlet_streams_active", "db") != 1 {
		t.Error("a service that is back is not counted")
	}
	wantEcho(t, second, "still here")
}

// At the same port another outlet: who is there stays with the one before.
func TestInletReloadsOutlets(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}})
	old := r.open("1", "x")
	r.take(offered{"1", "db", "y", []int{1}})
	next := r.open("1", "y")
	wantEcho(t, old, "still here")
	if st := r.in.Status(); len(st.Services) != 1 || st.Services[0].Streams != 2 {
		t.Errorf("the status has %+v, want both streams under the one service", st.Services)
	}
	_ = old.Close()
	eventually(t, "the channel to the first outlet is closed", func() bool { return r.in.countChannels() == 1 })
	wantEcho(t, next, "still here")
	if n := len(r.inletLog.lines(t, map[string]string{"msg": "listening"})); n != 1 {
		t.Errorf("the inlet has begun to listen %d times, want once", n)
	}
}

// A channel leaves a route that is listed no more, with what it carries, and is never
// without a path: its relay can be taken away then.
func TestInletReloadsRoutes(t *testing.T) {
	t.Parallel()
	for name, services := range map[string][2][]offered{
		"alone": {{{"1", "db", "x", []int{0}}}, {{"1", "db", "x", []int{1}}}},
		// What two services have shared, and what they will share.
		"together": {{{"1", "db", "x", []int{0}}, {"2", "web", "x", []int{0, 1}}}, {{"1", "db", "x", []int{1}}, {"2", "web", "x", []int{1}}}},
		"removed":  {{{"1", "db", "x", []int{0}}, {"2", "web", "x", []int{0, 1}}}, {{"2", "web", "x", []int{1}}}},
		"moved":    {{{"1", "db", "x", []int{0}}}, {{"2", "db", "x", []int{1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startReloadable(t, services[0]...)
			nc := r.open("1", "x")
			r.take(services[1]...)
			eventually(t, "no channel leads over the first relay", func() bool {
				wantEcho(t, nc, "meanwhile")
				return r.relays[0].server.Counts().Joins == 0
			})
			if n := metric(t, r.in.obs, "culvert_channel_path_changes_total", "lost"); n != 0 {
				t.Errorf("channels were without a path %v times", n)
			}
			for _, l := range r.in.allLinks() {
				for _, way := range l.status().Routes {
					if way.Route == r.ways[0].String() {
						t.Errorf("a link still has the route %s", way.Route)
					}
				}
			}
			r.stopRelays[0]()
			wantEcho(t, nc, "still here")
			wantEcho(t, r.open(services[1][0].port, "x"), "new")
		})
	}
}

// Of a file of which a part cannot be had nothing holds, and the log says why, with the
// place.
func TestInletReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}})
	nc := r.open("1", "x")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	r.ports["taken"] = portOf(taken.Addr())
	bad := strings.Replace(r.with(offered{"3", "web", "y", []int{1}}, offered{"taken", "web", "y", []int{1}}), "log_level: debug", "log_level: error", 1)
	why := r.refused(bad)
	for _, want := range []string{r.name + ":11:", "services[1].listen", "address already in use", "choose another"} {
		if !strings.Contains(why, want) {
			t.Errorf("refused with %q, want %q", why, want)
		}
	}
	r.wantClosed("3") // it was opened, and is not kept
	wantEcho(t, nc, "still here")
	wantEcho(t, r.open("1", "x"), "as before")
	if !r.in.log.Core().Enabled(-1) {
		t.Error("the log's level has changed")
	}
	if got := r.checks(); got != "service/db" {
		t.Errorf("the checks are %s", got)
	}
	if r.series("web") != 0 || len(r.in.allLinks()) != 1 {
		t.Error("something of the refused file is there")
	}
	// One's own address, wider.
	why = r.refused(strings.Replace(r.with(offered{"1", "db", "x", []int{0}}), "127.0.0.1:", "0.0.0.0:", 1))
	if !strings.Contains(why, "this inlet itself listens at "+local(r.ports["1"]).String()) {
		t.Errorf("refused with %q, want that the inlet itself is in the way", why)
	}
	for name, text := range map[string]string{
		"no services": r.text + "services: []\n",
		"by name":     strings.Replace(r.with(offered{"1", "db", "x", []int{0}}), "    outlet: "+r.outlets["x"].String()+"\n", "", 1),
	} {
		if why := r.refused(text); !strings.Contains(why, r.name+":") {
			t.Errorf("%s: refused with %q, want the place", name, why)
		}
	}
	wantEcho(t, nc, "still here")
}

// A level that there is not keeps authorities from being changed, too: nothing else
// could be put back.
func TestReloadChangesNothingForABadLevel(t *testing.T) {
	r, _, _ := relayWithState(t, "")
	_, a := newIdentity(t)
	c := *r.common
	c.LogLevel = "loud"
	err := r.apply(&c, &r.cfg.Trust, []identity.Identifier{a}, func() { t.Error("something was set") })
	if err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("apply: %v, want the level", err)
	}
	if !r.trust.sameAs(nil) {
		t.Error("the authority is trusted")
	}
}

// A client that waits for a channel goes to what has taken the place of where it
// waited, and hears at once where nothing has.
func TestInletReloadWhileClientsWait(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}}, offered{"2", "web", "x", []int{0}})
	for _, stop := range r.stopRelays[:1] {
		stop()
	}
	eventually(t, "there is no path", func() bool { ok, _ := r.in.obs.Ready.Check(); return !ok })
	waiting := dialTCP(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.ports["1"]})
	hopeless := dialTCP(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.ports["2"]})
	eventually(t, "both wait", func() bool { return r.in.wanted()[0].(*inletLink).waiting.Load() == 2 })
	r.take(offered{"1", "db", "y", []int{1}})
	got := make([]byte, 1)
	if _, err := io.ReadFull(waiting, got); err != nil || string(got) != "y" {
		t.Errorf("who waited gets %q, %v, want the other outlet", got, err)
	}
	wantReset(t, hopeless)
	eventually(t, "a line says why", func() bool {
		return len(r.inletLog.lines(t, map[string]string{"msg": "stream refused", "service": "web"})) == 1
	})
}

// However often settings change, under clients that come and go: none is lost, and
// nothing is left behind.
func TestInletReloadsAgainAndAgain(t *testing.T) {
	always := offered{"1", "db", "x", []int{0}}
	r := startReloadable(t, always)
	_ = r.open("1", "x").Close()
	eventually(t, "all is quiet", func() bool { return r.in.countStreams() == 0 })
	goroutines := runtime.NumGoroutine()
	stop, port := make(chan struct{}), r.ports["1"]
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := tryLetter(port); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 24 {
		always.outlet, always.ways = []string{"x", "y", "x"}[i%3], [][]int{{0}, {1}, {0, 1}, {1, 0}}[i%4]
		r.take(append([]offered{{"2", "web", "y", []int{i % 2}}, {"3", "web", "x", []int{0}}}[i%3:min(2, 1+i%3)], always)...)
	}
	close(stop)
	clients.Wait()
	r.take(offered{"1", "db", "x", []int{0}})
	eventually(t, "one channel is left", func() bool { return r.in.countChannels() == 1 && len(r.in.allLinks()) == 1 && r.in.countStreams() == 0 })
	// The outlets' spare conns at their relays have become more, each with goroutines at
	// both ends; a leak would be of 24 at least.
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines+16 })
	eventually(t, "no metrics are left", func() bool { return r.series("web") == 0 })
}

// tryLetter makes one stream, as a client does that checks every byte.
func tryLetter(port int) error {
	nc, err := net.Dial("tcp", local(port).String())
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, "hello"); err != nil {
		return err
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	b, err := io.ReadAll(nc)
	if err != nil || len(b) != 6 || string(b[1:]) != "hello" {
		return fmt.Errorf("a client has read %q, %w", b, err)
	}
	return nil
}

// A file that comes while the inlet stops changes nothing any more, and harms nothing.
func TestInletReloadWhileStopping(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, offered{"1", "db", "x", []int{0}})
	r.text = strings.Replace(r.text, "drain_timeout: 5s", "drain_timeout: 1m", 1) // not over before the stream has ended
	r.take(offered{"1", "db", "x", []int{0}})
	nc := r.open("1", "x")
	stopped := startStop(r.stop)
	eventually(t, "the inlet stops", func() bool {
		return len(r.inletLog.lines(t, map[string]string{"msg": "stopping"})) == 1
	})
	if why := r.refused(r.with(offered{"1", "db", "y", []int{1}}, offered{"2", "web", "y", []int{1}})); !strings.Contains(why, errShutdown.Error()) {
		t.Errorf("refused with %q, want that the process stops", why)
	}
	wantEcho(t, nc, "still here")
	r.wantClosed("2")
	_ = nc.Close()
	<-stopped
}
