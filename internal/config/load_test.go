package config

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// The files are those of the design, with identifiers filled in.
const (
	relayFile = `# relay.yaml
identity: relay.key
listen: [tcp://0.0.0.0:4000]
register: [<ID>, <ID2>]       # who may offer an outlet here
connect: [<ID3>]              # who may be joined to one
extend: [tcp://relay-b:4000]  # where this relay may carry callers on to; empty: nowhere
metrics: 0.0.0.0:9100         # /healthz /readyz /metrics only
admin: 127.0.0.1:9101         # status and console: loopback or unix:///path only
`
	outletFile = `# outlet.yaml
identity: outlet.key
relays: ["tcp://relay-a:4000/<ID>"]        # routes: registers at the last hop of each
listen: []                                 # or accept channels directly: tcp://0.0.0.0:4001
services:
  - name: orders-db
    target: tcp://127.0.0.1:5432
    allow: [<ID2>, <ID3>]
`
	inletFile = `# inlet.yaml
identity: inlet.key
services:
  - listen: tcp://127.0.0.1:15432
    service: orders-db
    outlet: <ID3>
    routes:                                # alternatives, best first
      - tcp://relay-a:4000/<ID>
      - tcp://relay-b:4000/<ID>,tcp://relay-c:4000/<ID2>
`
)

// wantCommon are the defaults.
func wantCommon(identity string) Common {
	return Common{
		Identity:     identity,
		DrainTimeout: 30 * time.Second,
		Keepalive:    5 * time.Second,
		LogFormat:    "console",
		LogLevel:     "info",
		AuditFailure: "continue", Sandbox: "on",
	}
}

// equal compares settings without where they come from.
func equal(t *testing.T, got, want any) {
	t.Helper()
	v := reflect.New(reflect.TypeOf(got).Elem())
	v.Elem().Set(reflect.ValueOf(got).Elem())
	common := v.Elem().FieldByName("Common").Addr().Interface().(*Common)
	common.origins, common.file, common.info = nil, "", nil
	if !reflect.DeepEqual(v.Interface(), want) {
		t.Errorf("got  %+v\nwant %+v", v.Interface(), want)
	}
}

func hops(t *testing.T, s string) route.Route {
	t.Helper()
	r, err := route.Parse(fill(s))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDesignFiles(t *testing.T) {
	t.Run("relay", func(t *testing.T) {
		got, err := LoadRelay(source(t, KindRelay, inFolder(t, KindRelay, relayFile), nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		want := &Relay{
			Common:   wantCommon("relay.key"),
			Listen:   []Address{{Host: "0.0.0.0", Port: 4000}},
			Register: policy.List(testIDs[:2]...),
			Connect:  policy.List(testIDs[2:]...),
			Extend:   Extend{To: []Address{{Host: "relay-b", Port: 4000}}},
		}
		want.Metrics, want.Admin = Address{Host: "0.0.0.0", Port: 9100}, "127.0.0.1:9101"
		equal(t, got, want)
	})
	t.Run("outlet", func(t *testing.T) {
		got, err := LoadOutlet(source(t, KindOutlet, inFolder(t, KindOutlet, outletFile), nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, &Outlet{
			Common:      wantCommon("outlet.key"),
			Channels:    wantChannels(),
			Relays:      []route.Route{hops(t, "tcp://relay-a:4000/<ID>")},
			Services:    []OutletService{{Name: "orders-db", Target: Address{Host: "127.0.0.1", Port: 5432}, Allow: policy.List(testIDs[1:]...)}},
			DialTimeout: 10 * time.Second,
		})
	})
	t.Run("inlet", func(t *testing.T) {
		got := mustLoadInlet(t, source(t, KindInlet, inFolder(t, KindInlet, inletFile), nil, nil))
		equal(t, got, &Inlet{
			Common:   wantCommon("inlet.key"),
			Channels: wantChannels(),
			Services: []InletService{{
				Listen:  Address{Host: "127.0.0.1", Port: 15432},
				Service: "orders-db",
				Outlet:  testIDs[2],
				Routes:  []route.Route{hops(t, "tcp://relay-a:4000/<ID>"), hops(t, "tcp://relay-b:4000/<ID>,tcp://relay-c:4000/<ID2>")},
			}},
			ConnectTimeout: 10 * time.Second,
		})
	})
}

func TestAllKeys(t *testing.T) {
	got, err := LoadRelay(source(t, KindRelay, inFolder(t, KindRelay, `{"identity": "/keys/a.key", # JSON is YAML
  "listen": ["[::1]:4000", "Relay.Example.:4001", "127.0.0.1:0", "127.0.0.1:0"], "register": [], "admin": "unix:///run/a.sock",
  "drain_timeout": "1m", "keepalive": "1s", "clock_skew": "1m", "dial_timeout": "300ms", "state": "/state", "log_format": "json", "log_level": "debug", "audit": "audit.log", "audit_failure": "deny", "sandbox": "off",
  "limits": {"handshakes_per_second": 1, "handshakes_in_flight": 4, "connections": 3, "connections_per_identity": 4,
    "registrations_per_identity": 5, "waiting_callers": "6", "bytes_per_second": "10MiB"}}`), nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, &Relay{
		Common: Common{
			Identity: "/keys/a.key", State: "/state", Admin: "unix:///run/a.sock", DrainTimeout: time.Minute, Keepalive: time.Second,
			ClockSkew: time.Minute, LogFormat: "json", LogLevel: "debug", Audit: "audit.log", AuditFailure: "deny", Sandbox: "off",
		},
		Listen:      []Address{{Host: "::1", Port: 4000}, {Host: "relay.example", Port: 4001}, {Host: "127.0.0.1", Port: 0}, {Host: "127.0.0.1", Port: 0}},
		Register:    policy.List(),
		DialTimeout: 300 * time.Millisecond,
		Limits:      Limits{1, 4, 3, 4, 5, 6, 10 << 20},
	})
}

func TestFlagForms(t *testing.T) {
	inFolder(t, KindInlet, "")
	inlet := mustLoadInlet(t, source(t, KindInlet, "", []string{
		"--identity", "F", "--listen", "127.0.0.1:15432", "--service", "orders-db", "--outlet", "<ID>",
		"--route", "tcp://a:1/<ID2>,tcp://b:1/<ID3>", "--route", "tcp://c:1/<ID3>",
	}, nil))
	equal(t, inlet, &Inlet{
		Common:   wantCommon("F"),
		Channels: wantChannels(),
		Services: []InletService{{
			Listen:  Address{Host: "127.0.0.1", Port: 15432},
			Service: "orders-db",
			Outlet:  testIDs[0],
			Routes:  []route.Route{hops(t, "tcp://a:1/<ID2>,tcp://b:1/<ID3>"), hops(t, "tcp://c:1/<ID3>")},
		}},
		ConnectTimeout: 10 * time.Second,
	})
	outlet, err := LoadOutlet(source(t, KindOutlet, "", []string{
		"--identity", "F", "--relay", "tcp://a:1/<ID2>", "--service", "orders-db=127.0.0.1:5432", "--service", "web=tcp://web:80",
		"--allow", "<ID>", "--allow", "<ID2>",
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, outlet, &Outlet{
		Common:   wantCommon("F"),
		Channels: wantChannels(),
		Relays:   []route.Route{hops(t, "tcp://a:1/<ID2>")},
		Services: []OutletService{
			{Name: "orders-db", Target: Address{Host: "127.0.0.1", Port: 5432}, Allow: policy.List(testIDs[:2]...)},
			{Name: "web", Target: Address{Host: "web", Port: 80}, Allow: policy.List(testIDs[:2]...)},
		},
		DialTimeout: 10 * time.Second,
	})
	relay, err := LoadRelay(source(t, KindRelay, "", []string{
		"--identity", "F", "--listen", "127.0.0.1:4000", "--listen", "[::1]:4000", "--register", "<ID>", "--connect", "<ID2>", "--extend", "b:4000",
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, relay, &Relay{
		Common:   wantCommon("F"),
		Listen:   []Address{{Host: "127.0.0.1", Port: 4000}, {Host: "::1", Port: 4000}},
		Register: policy.List(testIDs[:1]...),
		Connect:  policy.List(testIDs[1:2]...),
		Extend:   Extend{To: []Address{{Host: "b", Port: 4000}}},
	})
}

func TestPrecedence(t *testing.T) {
	all := []string{"CULVERT_LOG_LEVEL=warn", "CULVERT_LISTEN=127.0.0.1:2", "CULVERT_ROUTE=tcp://env:1/<ID> tcp://env:2/<ID>"}
	for _, tt := range []struct {
		name, level, listen, routes, from string
		args, env                         []string
	}{
		{"file", "error", "127.0.0.1:1", "tcp://file:1/<ID>", "log_level in inlet.yaml:2:12", nil, nil},
		{"variables", "warn", "127.0.0.1:2", "tcp://env:1/<ID> tcp://env:2/<ID>", "CULVERT_LOG_LEVEL", nil, all},
		{"flags", "debug", "127.0.0.1:3", "tcp://flag:1/<ID>", "--log-level", []string{"--log-level", "debug", "--listen", "127.0.0.1:3", "--route", "tcp://flag:1/<ID>"}, all},
		{"empty variables", "error", "127.0.0.1:1", "tcp://file:1/<ID>", "log_level in inlet.yaml:2:12", nil, []string{"CULVERT_LOG_LEVEL=", "CULVERT_LISTEN= ", "CULVERT_ROUTE=\t"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := inFolder(t, KindInlet, `identity: a
log_level: error
services:
  - {listen: "127.0.0.1:1", service: db, outlet: <ID>, routes: ["tcp://file:1/<ID>"]}
`)
			c := mustLoadInlet(t, source(t, KindInlet, file, tt.args, tt.env))
			var routes []string
			for _, r := range c.Services[0].Routes {
				routes = append(routes, r.String())
			}
			if c.LogLevel != tt.level || c.Services[0].Listen.String() != tt.listen || unfill(strings.Join(routes, " ")) != tt.routes {
				t.Errorf("got %q %q %q, want %q %q %q", c.LogLevel, c.Services[0].Listen, routes, tt.level, tt.listen, tt.routes)
			}
			if got := c.Where("log_level"); got != tt.from {
				t.Errorf("Where: got %q, want %q", got, tt.from)
			}
		})
	}
}

func TestPrecedenceOfOutletServices(t *testing.T) {
	file := inFolder(t, KindOutlet, outletFile)
	c, err := LoadOutlet(source(t, KindOutlet, file, []string{"--allow", "<ID>"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 1 || c.Services[0].Name != "orders-db" || !reflect.DeepEqual(c.Services[0].Allow, policy.List(testIDs[0])) {
		t.Errorf("--allow with one service in the file: got %+v", c.Services)
	}
	c, err = LoadOutlet(source(t, KindOutlet, file, []string{"--service", "b=b:1"}, []string{"CULVERT_ALLOW=<ID2>", "CULVERT_SERVICE=c=c:1"}))
	if err != nil {
		t.Fatal(err)
	}
	want := []OutletService{{Name: "b", Target: Address{Host: "b", Port: 1}, Allow: policy.List(testIDs[1:2]...)}}
	if !reflect.DeepEqual(c.Services, want) {
		t.Errorf("--service over the file's: got %+v, want %+v", c.Services, want)
	}
}

func TestConfigVariable(t *testing.T) {
	inFolder(t, KindRelay, relayFile)
	if _, err := LoadRelay(source(t, KindRelay, "", nil, []string{"CULVERT_CONFIG=relay.yaml"})); err != nil {
		t.Error(err)
	}
	_, err := LoadRelay(source(t, KindRelay, "relay.yaml", nil, []string{"CULVERT_CONFIG=nope.yaml"}))
	if err != nil {
		t.Errorf("--config does not beat CULVERT_CONFIG: %v", err)
	}
	_, err = LoadRelay(source(t, KindRelay, "", nil, []string{"CULVERT_CONFIG=nope.yaml"}))
	if want := `CULVERT_CONFIG: settings file "nope.yaml": no such file or directory: check the name and the folder`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap fs.ErrNotExist", err)
	}
}

func TestIdentityPath(t *testing.T) {
	inFolder(t, KindRelay, "")
	for _, tt := range []struct {
		file string // of the folder etc
		args []string
		want string
	}{
		{"identity: a.key", nil, "etc/a.key"},
		{"identity: keys/a.key", nil, "etc/keys/a.key"},
		{"identity: /a.key", nil, "/a.key"},
		{"identity: a.key", []string{"--identity", "b.key"}, "b.key"},
	} {
		write(t, "etc/relay.yaml", fill(tt.file+"\nlisten: [127.0.0.1:1]\nregister: []\n"))
		c, err := LoadRelay(source(t, KindRelay, "etc/relay.yaml", tt.args, nil))
		if err != nil {
			t.Fatal(err)
		}
		if c.Identity != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.file, tt.args, c.Identity, tt.want)
		}
	}
}

func TestExpansion(t *testing.T) {
	env := []string{"HOST=10.0.0.1", "PORT=4000", "ID=<ID>", "KEY=$${PORT}", "LEVEL=debug", "TRICK=a\nconnect: []", "N=7"}
	file := inFolder(t, KindRelay, `identity: "$${x}$$/${KEY}"
listen: ["${HOST}:${PORT}"]
register:
  - ${ID}
log_level: ${LEVEL}
limits:
  connections: ${N}
`)
	c, err := LoadRelay(source(t, KindRelay, file, nil, env))
	if err != nil {
		t.Fatal(err)
	}
	// What a variable holds is not expanded again.
	if got, want := c.Identity, "${x}$/$${PORT}"; got != want {
		t.Errorf("identity: got %q, want %q", got, want)
	}
	if c.Listen[0] != (Address{Host: "10.0.0.1", Port: 4000}) || c.Register.IDs()[0] != testIDs[0] || c.LogLevel != "debug" || c.Limits.Connections != 7 {
		t.Errorf("got %+v", c)
	}
	// A variable cannot add keys.
	file = inFolder(t, KindRelay, "identity: ${TRICK}\nlisten: [127.0.0.1:1]\nregister: []\n")
	c, err = LoadRelay(source(t, KindRelay, file, nil, env))
	if err != nil || c.Identity != "a\nconnect: []" || c.Connect != nil {
		t.Errorf("got %+v, %v", c, err)
	}
	// Flags and variables are taken as they are: the shell has expanded them.
	c, err = LoadRelay(source(t, KindRelay, file, []string{"--identity", "${HOST}"}, env))
	if err != nil || c.Identity != "${HOST}" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// A variable that the file refers to is not taken for a misspelt one.
func TestReferredVariable(t *testing.T) {
	file := inFolder(t, KindRelay, "identity: ${CULVERT_IDENTITYS}\nlisten: [127.0.0.1:1]\nregister: []\n")
	if _, err := LoadRelay(source(t, KindRelay, file, nil, []string{"CULVERT_IDENTITYS=a"})); err != nil {
		t.Error(err)
	}
}

func TestWhereAndFault(t *testing.T) {
	c := mustLoadInlet(t, source(t, KindInlet, inFolder(t, KindInlet, inletFile), []string{"--metrics", "127.0.0.1:9100"}, []string{"CULVERT_ADMIN=127.0.0.1:9101"}))
	for key, want := range map[string]string{
		"services[0].listen":    "services[0].listen in inlet.yaml:4:13",
		"services[0].routes[1]": "services[0].routes[1] in inlet.yaml:9:9",
		"metrics":               "--metrics",
		"admin":                 "CULVERT_ADMIN",
		"log_level":             "log_level",
	} {
		if got := c.Where(key); got != want {
			t.Errorf("Where(%q): got %q, want %q", key, got, want)
		}
	}
	err := c.Fault("identity", fs.ErrNotExist)
	if want := "inlet.yaml:2:11: identity: file does not exist"; err.Error() != want || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Fault: got %v, want %s", err, want)
	}
	err = c.ListenError("services[0].listen", syscall.EADDRINUSE)
	if want := "address already in use: services[0].listen in inlet.yaml:4:13: choose another address, or stop the program that has this one"; err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("ListenError: got %v, want %s", err, want)
	}
	var zero Inlet
	if got := zero.Fault("identity", fs.ErrNotExist).Error(); got != "identity: file does not exist" {
		t.Errorf("Fault without Load: got %q", got)
	}
}

func TestSetDefaults(t *testing.T) {
	var c Relay
	c.SetDefaults()
	equal(t, &c, &Relay{Common: wantCommon("")})
	c = Relay{Common: Common{Keepalive: time.Second}, Limits: Limits{Connections: 1}}
	c.SetDefaults()
	if c.Keepalive != time.Second || c.Limits.Connections != 1 {
		t.Errorf("SetDefaults changed what was set: %+v", c)
	}
	var o Outlet
	o.SetDefaults()
	var i Inlet
	i.SetDefaults()
	if o.DialTimeout != 10*time.Second || i.ConnectTimeout != 10*time.Second || i.LogLevel != "info" {
		t.Errorf("got %+v %+v", o, i)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		file string
		args []string
		env  []string
		want bool
	}{
		{"", nil, nil, true},
		{"", []string{"--listen", ":1"}, nil, true},
		{"", []string{"--listen", ":1"}, []string{"CULVERT_KEEPALIVE=1"}, false},
		{"identity: a\n", []string{"--listen", ":1"}, nil, false},
		{"", []string{"--config", "nope.yaml"}, nil, false},
	} {
		_, err := LoadRelay(source(t, KindRelay, inFolder(t, KindRelay, tt.file), tt.args, tt.env))
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("%+v: no faults: %v", tt, err)
		}
		if got := faults.Usage(); got != tt.want {
			t.Errorf("%+v: got %v, want %v: %v", tt, got, tt.want, err)
		}
	}
}

func TestLoadEndpoints(t *testing.T) {
	for _, tt := range []struct {
		file, metrics, admin, err string
		args                      []string
	}{
		{file: relayFile, metrics: "0.0.0.0:9100", admin: "127.0.0.1:9101"},
		{file: "metrics: 127.0.0.1:1\nlisten: broken\nfoo: bar\n", metrics: "127.0.0.1:1"},
		{file: "admin: unix:///a\n", args: []string{"--metrics", "127.0.0.1:3"}, metrics: "127.0.0.1:3", admin: "unix:///a"},
		{file: "metrics: :1\nadmin: x\nidentity: []\n", err: "relay.yaml:1:10: metrics: \":1\" listens on every interface; write 0.0.0.0:1 if you mean that, or 127.0.0.1:1\n" +
			"relay.yaml:2:8: admin: \"x\" has no port: write host:port"},
		{file: "a: [", err: "relay.yaml:1:4: not YAML: sequence end token ']' not found"},
		{args: []string{"--admin", "localhost:1"}, admin: "localhost:1"},
	} {
		metrics, admin, err := LoadEndpoints(KindRelay, source(t, KindRelay, inFolder(t, KindRelay, tt.file), tt.args, nil))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if metrics.String() != tt.metrics || admin != tt.admin || got != tt.err {
			t.Errorf("%q %q: got %q %q %q, want %q %q %q", tt.file, tt.args, metrics, admin, got, tt.metrics, tt.admin, tt.err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name, file   string
		kind         Kind
		want, failed string
	}{
		{name: "inlet", file: inletFile, want: "inlet, 1 service"},
		{name: "outlet", file: outletFile, want: "outlet, 1 service"},
		{name: "relay", file: relayFile, want: "relay, 1 address"},
		{name: "said", file: relayFile, kind: KindRelay, want: "relay, 1 address"},
		{name: "only listens", file: "identity: a\nlisten: [127.0.0.1:1]\n", failed: "x.yaml: cannot tell whose settings these are: say so with --kind inlet, outlet, relay, authority or webhook"},
		{name: "half and half", file: "relays: []\nregister: []\n", failed: "x.yaml: cannot tell whose settings these are: say so with --kind inlet, outlet, relay, authority or webhook"},
		{name: "another's", file: relayFile, kind: KindInlet, failed: `x.yaml:4:1: register: this file is for the command relay, not for inlet: run "relay --config x.yaml"`},
		{name: "faults of both layers", file: "identity: ${NOPE}\nregister: []\nregister: []\nlisten: a\n", failed: "x.yaml:1:11: identity: the environment variable NOPE is not set: set it, or write $${NOPE} for the text itself\n" +
			"x.yaml:3:1: register: this key is there already, in line 2: remove one of them\n" +
			"x.yaml:4:9: listen: want a list, not text: write it as [a, b] or in lines that begin with a dash"},
		{name: "syntax", file: "[", failed: "x.yaml:1:1: not YAML: sequence end token ']' not found"},
		{name: "no such kind", file: relayFile, kind: "culvert", failed: `x.yaml:4:1: register: this file is for the command relay, not for culvert: run "relay --config x.yaml"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "x.yaml", fill(tt.file))
			// Variables that the command would take do not count here.
			report, err := Check("x.yaml", tt.kind, []string{"CULVERT_LISTEN=bad"})
			switch {
			case err != nil && err.Error() != tt.failed:
				t.Errorf("got\n%v\nwant\n%s", err, tt.failed)
			case err == nil && tt.failed != "":
				t.Errorf("got %+v, want %s", report, tt.failed)
			case err == nil && string(report.Kind)+", "+report.Summary != tt.want:
				t.Errorf("got %s, %s, want %s", report.Kind, report.Summary, tt.want)
			}
		})
	}
	_, err := Check("nope.yaml", "", nil)
	if want := "nope.yaml: no such file or directory: check the name and the folder"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFileForms(t *testing.T) {
	text := fill(relayFile)
	for name, file := range map[string]string{
		"byte order mark":    "\ufeff" + text,
		"CRLF":               strings.ReplaceAll(text, "\n", "\r\n"),
		"document marks":     "---\n" + text + "...\n",
		"no newline":         strings.TrimSpace(text),
		"trailing documents": text + "---\n# nothing\n",
	} {
		t.Chdir(t.TempDir())
		write(t, "relay.yaml", file)
		c, err := LoadRelay(source(t, KindRelay, "relay.yaml", nil, nil))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Admin != "127.0.0.1:9101" || len(c.Register.IDs()) != 2 {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}
func wantChannels() Channels { return Channels{Grace: DefaultGrace, Buffers: DefaultBuffers} }

// TestChannelSettings: the same keys, flags and variables at inlet and outlet.
func TestChannelSettings(t *testing.T) {
	want := Channels{Name: "orders-0", Grace: 90 * time.Second, Buffers: 64 << 20}
	inlet := mustLoadInlet(t, source(t, KindInlet, inFolder(t, KindInlet, "name: ${HOST}\ngrace: 90s\nbuffers: 64MiB\n"+inletFile), nil, []string{"HOST=orders-0"}))
	if inlet.Channels != want {
		t.Errorf("got %+v, want %+v", inlet.Channels, want)
	}
	outlet, err := LoadOutlet(source(t, KindOutlet, inFolder(t, KindOutlet, outletFile), []string{"--name", "orders-0", "--grace", "90s"}, []string{"CULVERT_BUFFERS=64MiB"}))
	if err != nil {
		t.Fatal(err)
	}
	if outlet.Channels != want {
		t.Errorf("got %+v, want %+v", outlet.Channels, want)
	}
}

// An outlet has the one of a relay's limits that it has a use for.
func TestOutletLimits(t *testing.T) {
	outlet, err := LoadOutlet(source(t, KindOutlet, inFolder(t, KindOutlet, outletFile+"limits: {handshakes_per_second: 20}\n"), nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if want := (OutletLimits{HandshakesPerSecond: 20}); outlet.Limits != want {
		t.Errorf("got %+v, want %+v", outlet.Limits, want)
	}
}
