package app

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// filed is a system whose processes have their settings from files.
type filed struct {
	*system
	inletID, outletID, relayID string
	relayFile, outletFile      *settingsFile
}

// A settingsFile is a file that a process follows.
type settingsFile struct {
	t    *testing.T
	name string
	text string // its last good one
	b    func() *base
	log  func() *logBuffer
}

// write exchanges the file as a whole, and asks for it.
func (f *settingsFile) write(text string) {
	f.t.Helper()
	replaceFile(f.t, f.name, text)
	f.b().Reload()
}

func replaceFile(t *testing.T, name, text string) {
	t.Helper()
	next := name + ".next"
	must(t, os.WriteFile(next, []byte(text), 0o600))
	must(t, os.Rename(next, name))
}

// change replaces parts of the last good text, and waits until that is in force.
func (f *settingsFile) change(from, to string) {
	f.t.Helper()
	if !strings.Contains(f.text, from) {
		f.t.Fatalf("no %q in %s", from, f.text)
	}
	f.text = strings.ReplaceAll(f.text, from, to)
	before := metric(f.t, f.b().obs, "culvert_config_reloads_total", "ok")
	f.write(f.text)
	eventually(f.t, "the settings file is read again", func() bool {
		return metric(f.t, f.b().obs, "culvert_config_reloads_total", "ok") > before
	})
}

// refused writes a file that cannot be taken, and returns why, once that is said.
func (f *settingsFile) refused(text string) string {
	f.t.Helper()
	said := func() []map[string]any {
		return f.log().lines(f.t, map[string]string{"msg": "settings file cannot be taken, what holds stays", "level": "error"})
	}
	before := len(said())
	f.write(text)
	eventually(f.t, "the settings are refused", func() bool { return len(said()) > before })
	lines := said()
	return fmt.Sprint(lines[len(lines)-1]["error"])
}

func fileSource(name string) config.Source {
	return config.Source{Environ: []string{"CULVERT_CONFIG=" + name}}
}

// startFiled starts a relay, an outlet with the services "echo" and "other", both to
// the same target, and an inlet that has a listener for each.
func startFiled(t *testing.T) *filed {
	t.Helper()
	f := &filed{system: &system{}}
	folder := t.TempDir()
	relayKey, relayID := newIdentity(t)
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	f.relayID, f.outletID, f.inletID = relayID.String(), outletID.String(), inletID.String()
	target := serveTCP(t, echo)

	f.relayFile = &settingsFile{t: t, name: filepath.Join(folder, "relay.yaml"), b: func() *base { return f.relay.base }, log: func() *logBuffer { return f.relayLog }}
	f.relayFile.text = fmt.Sprintf("identity: %s\nlisten: [tcp://127.0.0.1:0]\ndrain_timeout: 1s\nlog_level: debug\nregister: [%s]\nconnect: [%s]\n", relayKey, outletID, inletID)
	replaceFile(t, f.relayFile.name, f.relayFile.text)
	rc, err := config.LoadRelay(fileSource(f.relayFile.name))
	must(t, err)
	var o *obs.Obs
	o, f.relayLog = newObs(t, "relay")
	f.relay, err = NewRelay(rc, o)
	must(t, err)
	f.relay.Follow(func() (*config.Relay, error) { return config.LoadRelay(fileSource(f.relayFile.name)) })
	must(t, f.relay.Listen(t.Context()))
	f.stopRelay = run(t, f.relay.Run)
	way := routeTo(f.relay.Addrs()[0], relayID)

	f.outletFile = &settingsFile{t: t, name: filepath.Join(folder, "outlet.yaml"), b: func() *base { return f.outlet.base }, log: func() *logBuffer { return f.outletLog }}
	f.outletFile.text = fmt.Sprintf("identity: %s\nrelays: [%q]\ndrain_timeout: 1s\nlog_level: debug\nservices:\n", outletKey, way)
	for _, name := range []string{"echo", "other"} {
		f.outletFile.text += fmt.Sprintf("  - name: %s\n    target: tcp://%s\n    allow: [%s] # %s\n", name, target, inletID, name)
	}
	replaceFile(t, f.outletFile.name, f.outletFile.text)
	oc, err := config.LoadOutlet(fileSource(f.outletFile.name))
	must(t, err)
	o, f.outletLog = newObs(t, "outlet")
	f.outlet, err = NewOutlet(oc, o)
	must(t, err)
	f.outlet.Follow(func() (*config.Outlet, error) { return config.LoadOutlet(fileSource(f.outletFile.name)) })
	must(t, f.outlet.Listen(t.Context()))
	f.stopOutlet = run(t, f.outlet.Run)

	ic := config.Inlet{Common: config.Common{Identity: inletKey, DrainTimeout: time.Second}, ConnectTimeout: patience}
	for _, name := range []string{"echo", "other", "third"} {
		ic.Services = append(ic.Services, config.InletService{Listen: local(0), Service: name, Outlet: outletID, Routes: []route.Route{way}})
	}
	f.inlet, f.inletLog, f.stopInlet = startInlet(t, ic)
	return f
}

func (f *filed) dialService(i int) *net.TCPConn { return dialTCP(f.outletFile.t, f.inlet.Addrs()[i]) }

// What an outlet's new settings allow goes on, what they do not is cut with a code;
// and what they allow anew is there.
func TestOutletReload(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	first, second := f.dialService(0), f.dialService(1)
	wantEcho(t, first, "hello")
	wantEcho(t, second, "hello")
	channel := f.outlet.channels.list()[0]

	f.outletFile.change(f.inletID+"] # other", strangerID(t)+"] # other")
	cutWithin(t, second, cutTimeout)
	eventually(t, "the outlet says which stream it has cut", func() bool {
		return len(f.outletLog.lines(t, map[string]string{"msg": "stream is cut", "service": "other", "code": "stream_denied"})) == 1
	})
	wantRefused(t, f.inlet.Addrs()[1])
	wantEcho(t, first, "still here")

	f.outletFile.change("allow: ["+strings.Fields(f.outletFile.text[strings.LastIndex(f.outletFile.text, "[")+1:])[0], `allow: 'peer.id == "`+f.inletID+`"'`)
	wantEcho(t, f.dialService(1), "and again")
	if list := f.outlet.channels.list(); len(list) != 1 || list[0] != channel {
		t.Error("the channel did not live through all of that")
	}
	wantEcho(t, first, "still here")
	if got := metric(t, f.outlet.obs, "culvert_config_reloads_total", "failed"); got != 0 {
		t.Errorf("%v reloads failed", got)
	}
}

// A service that is offered no more is cut, one that is new can be used, and one
// that has another target goes on to the one before.
func TestOutletReloadsServices(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	first, second := f.dialService(0), f.dialService(1)
	wantEcho(t, first, "hello")
	wantEcho(t, second, "hello")
	wantRefused(t, f.inlet.Addrs()[2])

	f.outletFile.change("name: other", "name: third")
	cutWithin(t, second, cutTimeout)
	eventually(t, "the outlet says which stream it has cut", func() bool {
		return len(f.outletLog.lines(t, map[string]string{"msg": "stream is cut", "service": "other", "code": "service_unknown"})) == 1
	})
	wantRefused(t, f.inlet.Addrs()[1])
	third := f.dialService(2)
	wantEcho(t, third, "I am new")

	greeter := serveTCP(t, func(nc *net.TCPConn) { _, _ = nc.Write([]byte("welcome")) })
	f.outletFile.change(strings.Fields(f.outletFile.text[strings.Index(f.outletFile.text, "target: tcp://"):])[1], "tcp://"+greeter.String())
	wantEcho(t, first, "still the old one")
	nc := f.dialService(0)
	b := make([]byte, 7)
	if n, err := nc.Read(b); err != nil || string(b[:n]) != "welcome" {
		t.Errorf("the new target says %q, %v", b[:n], err)
	}
	names := ""
	for _, s := range f.outlet.Status().Services {
		names += fmt.Sprint(s.Service, " ", s.Target == greeter.String(), " ", s.Streams > 0, ";")
	}
	if names != "echo true true;third true true;" {
		t.Errorf("the status has %s", names)
	}
	eventually(t, "the metrics of the service that is gone are shown no more", func() bool {
		families, err := f.outlet.obs.Registry.Gather()
		must(t, err)
		return !strings.Contains(fmt.Sprint(families), `"other"`)
	})
	if n := f.outlet.countStreams(); n < 2 {
		t.Errorf("%d streams are counted, want those of the old services too", n)
	}
}

// A file with a fault changes nothing, and the log says where the fault is. One that
// wants what needs a restart says what.
func TestReloadOfBadFiles(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	nc := f.dialService(0)
	wantEcho(t, nc, "hello")
	for _, tt := range []struct{ name, text, want string }{
		{"broken", strings.Replace(f.outletFile.text, "allow: ["+f.inletID+"] # echo", "allow: [who]", 1), f.outletFile.name + ":8:"},
		{"misspelt", strings.Replace(f.outletFile.text, "services:", "servces:", 1), f.outletFile.name + ":5:"},
		{"nobody may", strings.ReplaceAll(f.outletFile.text, f.inletID, "x"), f.outletFile.name + ":8:"},
		{"twice", strings.Replace(f.outletFile.text, "name: other", "name: echo", 1), f.outletFile.name + ":9:"},
		{"empty", "", "relays"},
		{"another's", f.relayFile.text, "for the command relay"},
	} {
		if text := f.outletFile.refused(tt.text); !strings.Contains(text, tt.want) {
			t.Errorf("%s: the log says %q, want %q", tt.name, text, tt.want)
		}
		if got := metric(t, f.outlet.obs, "culvert_config_file_in_use"); got != 0 {
			t.Errorf("%s: in use: %v", tt.name, got)
		}
		wantEcho(t, nc, "still here")
		wantEcho(t, f.dialService(1), "as before")
	}
	f.outletFile.change("drain_timeout: 1s", "drain_timeout: 1s\nkeepalive: 2s\ngrace: 2s")
	eventually(t, "what needs a restart is named", func() bool {
		lines := f.outletLog.lines(t, map[string]string{"msg": "settings file was read again and holds, but for what needs a restart", "level": "warn"})
		return len(lines) == 1 && fmt.Sprint(lines[0]["restart"]) == "[keepalive grace]"
	})
	f.outletFile.change("drain_timeout: 1s\nkeepalive: 2s\ngrace: 2s", "drain_timeout: 1s")
	eventually(t, "all is well again", func() bool {
		return metric(t, f.outlet.obs, "culvert_config_file_in_use") == 1 && len(f.outletLog.lines(t, map[string]string{"msg": "settings file was read again and holds"})) == 1
	})
	wantEcho(t, nc, "still here")
}

// What a relay's new settings do not allow ends: registrations, joins. What they
// do goes on.
func TestRelayReload(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	nc := f.dialService(0)
	wantEcho(t, nc, "hello")
	joins := f.relay.server.Status().Joins

	other := strangerID(t)
	f.relayFile.change("connect: ["+f.inletID+"]", "connect: ["+other+", "+f.inletID+"]\nextend: [tcp://127.0.0.1:1]")
	wantEcho(t, nc, "still here")
	if now := f.relay.server.Status().Joins; len(now) != 1 || !now[0].Since.Equal(joins[0].Since) {
		t.Errorf("the join was cut: %v, then %v", joins, now)
	}
	f.relayFile.change(", "+f.inletID+"]", "]")
	eventually(t, "the join ends", func() bool { return len(f.relay.server.Status().Joins) == 0 })
	eventually(t, "the inlet has heard of it", func() bool { ok, _ := f.inlet.obs.Ready.Check(); return !ok }) // before that a stream would wait, not its client
	f.inlet.connectTimeout.Store(int64(200 * time.Millisecond))
	wantRefused(t, f.inlet.Addrs()[0])
	f.inlet.connectTimeout.Store(int64(patience))

	f.relayFile.change("register: ["+f.outletID+"]", "register: 'peer.id == \""+other+"\"'")
	eventually(t, "the registration ends", func() bool {
		return len(f.relayLog.lines(t, map[string]string{"msg": "outlet unregistered", "code": "register_denied"})) > 0 && f.relay.server.Counts().Registrations == 0
	})
	f.relayFile.change("connect: ["+other+"]", "connect: ["+f.inletID+"]")
	f.relayFile.change("register: 'peer.id == \""+other+"\"'", "register: ["+f.outletID+"]")
	eventually(t, "all may again", func() bool { return f.relay.server.Counts().Registrations == 1 })
	eventually(t, "the inlet is ready again", func() bool { ok, _ := f.inlet.obs.Ready.Check(); return ok })
	wantEcho(t, f.dialService(0), "hello again")
	wantEcho(t, nc, "what a relay says ends no stream within the grace time")
}

func strangerID(t *testing.T) string {
	t.Helper()
	_, id := newIdentity(t)
	return id.String()
}

// The log level changes with the file, and the authorities do: credentials count
// that did not, and what they were for ends with them.
func TestReloadOfLevelAndAuthorities(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	a, err := identity.New(time.Now())
	must(t, err)
	f.outletFile.change("log_level: debug", "log_level: error\nauthorities: ["+a.Identifier().String()+"]")
	if f.outlet.log.Core().Enabled(0) {
		t.Error("the log has lines of the level info")
	}
	if !f.outlet.trust.enabled.Load() || f.outlet.trust.idle.Load() || !f.outlet.trust.sameAs([]identity.Identifier{a.Identifier()}) {
		t.Error("the authority is not trusted")
	}
	wantEcho(t, f.dialService(0), "hello")
	f.outletFile.change("log_level: error\nauthorities: ["+a.Identifier().String()+"]", "log_level: info")
	if !f.outlet.log.Core().Enabled(0) || f.outlet.trust.enabled.Load() || !f.outlet.trust.sameAs(nil) {
		t.Error("not all is as it was before")
	}
}
