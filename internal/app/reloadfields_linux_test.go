package app

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A liveField is a setting of C that a process takes while it runs.
type liveField[C any] struct {
	change func(c *C)  // gives it another value
	holds  func() bool // whether the process works by that
}

// A fieldsTest holds of every field of C, a kind's settings, that a reload either puts it
// into force or says that it needs a restart: that none is accepted and ignored. Fields
// are found in the struct itself, so that a new one is held to that, too.
type fieldsTest[C any] struct {
	settings func() *C // at the start
	follow   func(reread func() (*C, error))
	file     *settingsKeeper
	live     map[string]liveField[C] // by the names of fields, as in "Services.Limits.Connections"
}

func (f *fieldsTest[C]) run(t *testing.T) {
	var next *C
	f.follow(func() (*C, error) { return next, nil })
	reload := func(t *testing.T, c *C) (restart []string) {
		t.Helper()
		next = c
		rev, err := f.file.reread()
		must(t, err)
		must(t, rev.apply())
		return rev.restart
	}
	if restart := reload(t, f.settings()); len(restart) > 0 {
		t.Fatalf("without a change %q need a restart", restart)
	}
	fields := fieldsOf(reflect.TypeFor[C]())
	for name := range f.live {
		if !slices.Contains(fields, name) {
			t.Errorf("there is no field %s", name)
		}
	}
	for _, name := range fields {
		t.Run(name, func(t *testing.T) {
			c := f.settings()
			field, live := f.live[name]
			if !live {
				alter(t, fieldNamed(reflect.ValueOf(c).Elem(), name))
				key, _, _ := strings.Cut(name, ".")
				if restart := reload(t, c); len(restart) != 1 || strings.ReplaceAll(restart[0], "_", "") != strings.ToLower(key) {
					t.Errorf("a change is accepted and ignored: %q need a restart, want the key of %s; or it is live, and has no test here", restart, key)
				}
				return
			}
			if field.holds() {
				t.Fatal("it holds before it is changed")
			}
			field.change(c)
			if restart := reload(t, c); len(restart) > 0 {
				t.Errorf("%q need a restart", restart)
			}
			if !field.holds() {
				t.Error("a change is accepted and ignored")
			}
			reload(t, f.settings())
			if field.holds() {
				t.Error("what it was before is accepted and ignored")
			}
		})
	}
}

// derived are fields that are another one's value in another form.
var derived = []string{"TicketFile", "TicketRoutes"} // of Ticket

// fieldsOf returns the names of all settings in a struct of package config, those in
// structs of its own with theirs in front.
func fieldsOf(s reflect.Type) (names []string) {
	for i := range s.NumField() {
		f := s.Field(i)
		switch inner := structOf(f.Type); {
		case f.Anonymous:
			names = append(names, fieldsOf(f.Type)...)
		case !f.IsExported() || slices.Contains(derived, f.Name):
		case inner != nil:
			for _, name := range fieldsOf(inner) {
				names = append(names, f.Name+"."+name)
			}
		default:
			names = append(names, f.Name)
		}
	}
	return names
}

// structOf returns the struct with settings of its own that a type is, or a list of, or
// points to; nil if it is one value.
func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[config.Common]().PkgPath() || t == reflect.TypeFor[config.Address]() {
		return nil
	}
	return t
}

// fieldNamed returns the field of that name, of the first in a list.
func fieldNamed(v reflect.Value, name string) reflect.Value {
	for first := range strings.SplitSeq(name, ".") {
		for v.Kind() == reflect.Slice || v.Kind() == reflect.Pointer {
			switch {
			case v.Kind() == reflect.Slice:
				v = v.Index(0)
			case v.IsNil():
				v.Set(reflect.New(v.Type().Elem()))
				fallthrough
			default:
				v = v.Elem()
			}
		}
		v = v.FieldByName(first)
	}
	return v
}

// alter makes v another value of its type.
func alter(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
		v.Set(m)
	case reflect.Array:
		alter(t, v.Index(0))
	case reflect.Struct:
		alter(t, v.Field(0))
	default:
		t.Fatalf("no other value of a %s is known", v.Type())
	}
}

// liveCommon are the live fields that all kinds have.
func liveCommon[C any](b *base, common func(*C) (*config.Common, *config.Trust)) map[string]liveField[C] {
	return map[string]liveField[C]{
		"DrainTimeout": {
			func(c *C) { s, _ := common(c); s.DrainTimeout = 7 * time.Second },
			func() bool { return b.drainTimeout() == 7*time.Second },
		},
		"LogLevel": {
			func(c *C) { s, _ := common(c); s.LogLevel = "error" },
			func() bool { return !b.log.Core().Enabled(zapcore.WarnLevel) },
		},
		"Authorities": {
			func(c *C) { _, s := common(c); s.Authorities = []identity.Identifier{id(9)} },
			func() bool { return b.trust.sameAs([]identity.Identifier{id(9)}) },
		},
	}
}

func TestInletReloadTakesOrNamesEveryField(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	path := filepath.Join(socketFolder(t), "s")
	way := func(port uint16) []route.Route {
		return []route.Route{{{Host: "127.0.0.1", Port: port, Identifier: id(3)}}}
	}
	settings := func() *config.Inlet {
		c := &config.Inlet{Common: config.Common{Identity: key}, Services: []config.InletService{{
			Listen: config.Address{Path: path}, Service: "db", Outlet: id(1), Routes: way(1),
		}}}
		c.SetDefaults()
		return c
	}
	in, _, _ := startInlet(t, *settings())
	free := testenv.Port(t)
	service := func() *inletService { // as a client gets it
		list, _ := in.offered()
		return enterAndLeave(in, list[0].port)
	}
	first := func(change func(s *config.InletService)) func(*config.Inlet) {
		return func(c *config.Inlet) { change(&c.Services[0]) }
	}
	live := liveCommon(in.base, func(c *config.Inlet) (*config.Common, *config.Trust) { return &c.Common, &c.Trust })
	for name, field := range map[string]liveField[config.Inlet]{
		"ConnectTimeout": {
			func(c *config.Inlet) { c.ConnectTimeout = 3 * time.Second },
			func() bool { return time.Duration(in.connectTimeout.Load()) == 3*time.Second },
		},
		"Services.Listen": {
			first(func(s *config.InletService) { s.Listen = local(free) }),
			func() bool { return in.Addrs()[0].String() == local(free).String() },
		},
		"Services.Service": {
			first(func(s *config.InletService) { s.Service = "web" }),
			func() bool { return service().Service == "web" },
		},
		"Services.Outlet": {
			first(func(s *config.InletService) { s.Outlet = id(2) }),
			func() bool { return service().upstream.links()[0].outlet == id(2) },
		},
		"Services.Routes": {
			first(func(s *config.InletService) { s.Routes = way(2) }),
			func() bool { return slices.Equal(service().upstream.links()[0].routes.states()[0].Route, way(2)[0]) },
		},
		"Services.ListenMode": {
			first(func(s *config.InletService) { s.ListenMode = 0o660 }),
			func() bool { info, err := os.Lstat(path); return err == nil && info.Mode().Perm() == 0o660 },
		},
		"Services.Limits.Connections": {
			first(func(s *config.InletService) { s.Limits.Connections = 1 }),
			func() bool { return takes(service().bounds, 2) == 1 },
		},
		// The three limits come into force together.
		"Services.Limits.IdleTimeout": {
			first(func(s *config.InletService) { s.Limits.IdleTimeout = time.Minute }),
			func() bool { return service().Limits.IdleTimeout == time.Minute },
		},
		"Services.Limits.BytesPerSecond": {
			first(func(s *config.InletService) { s.Limits.BytesPerSecond = 1 << 20 }),
			func() bool { return service().Limits.BytesPerSecond == 1<<20 },
		},
	} {
		live[name] = field
	}
	(&fieldsTest[config.Inlet]{settings, in.Follow, in.file, live}).run(t)
}

// pairFiles puts a certificate and its key into files.
func pairFiles(t *testing.T, pair tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	folder := t.TempDir()
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return certFile, keyFile
}

// takes returns for how many of n connections there is a place.
func takes(l *serviceLimits, n int) (places int) {
	for range n {
		if l.enter() == nil {
			defer l.leave()
			places++
		}
	}
	return places
}

func TestOutletReloadTakesOrNamesEveryField(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	pair, ca := targetCert(t)
	certFile, keyFile := pairFiles(t, pair)
	settings := func() *config.Outlet {
		c := &config.Outlet{
			Common: config.Common{Identity: key}, Listen: []config.Address{local(0)},
			Services: []config.OutletService{{Name: "db", Target: local(1), Allow: policy.List(id(1)), TLS: &config.TargetTLS{}}},
		}
		c.SetDefaults()
		return c
	}
	out, _, _ := startOutlet(t, *settings())
	var before *config.Outlet // what was changed last
	live := liveCommon(out.base, func(c *config.Outlet) (*config.Common, *config.Trust) { return &c.Common, &c.Trust })
	first := func(change func(s *config.OutletService), holds func(s *outletService) bool) liveField[config.Outlet] {
		return liveField[config.Outlet]{
			func(c *config.Outlet) { change(&c.Services[0]); before = c },
			func() bool { s := out.offered.Load().services[0]; return s.bounds != nil && holds(s) },
		}
	}
	relay := route.Route{{Host: "127.0.0.1", Port: 1, Identifier: id(3)}}
	for name, field := range map[string]liveField[config.Outlet]{
		"Relays": {
			func(c *config.Outlet) { c.Relays = []route.Route{relay} },
			func() bool { list := out.agents.all(); return len(list) == 1 && slices.Equal(list[0].route, relay) },
		},
		"DialTimeout": {
			func(c *config.Outlet) { c.DialTimeout = 3 * time.Second },
			func() bool { return time.Duration(out.dialTimeout.Load()) == 3*time.Second },
		},
		"Limits.HandshakesPerSecond": {
			func(c *config.Outlet) { c.Limits.HandshakesPerSecond = 7 },
			func() bool { return out.rate.Limit() == 7 && out.rate.Burst() == 7 },
		},
		"Services.Name": first(
			func(s *config.OutletService) { s.Name = "web" },
			func(s *outletService) bool { return s.Name == "web" && out.policy.Has("web") },
		),
		"Services.Target": first(
			func(s *config.OutletService) { s.Target = local(2) },
			func(s *outletService) bool { return s.address == "tls://"+local(2).String() },
		),
		"Services.Allow": first(
			func(s *config.OutletService) { s.Allow = policy.List(id(2)) },
			func(*outletService) bool {
				return out.policy.Decide(&policy.Request{Peer: policy.Peer{ID: id(2)}, Action: policy.Open, Service: "db"}).Allowed
			},
		),
		"Services.ProxyProtocol": first(
			func(s *config.OutletService) { s.ProxyProtocol = 2 },
			func(s *outletService) bool { return s.ProxyProtocol == 2 },
		),
		"Services.TrustClientAddress": first(
			func(s *config.OutletService) { s.ProxyProtocol, s.TrustClientAddress = 1, true },
			func(s *outletService) bool { return s.TrustClientAddress },
		),
		"Services.Limits.Connections": first(
			func(s *config.OutletService) { s.Limits.Connections = 1 },
			func(s *outletService) bool { return takes(s.bounds, 2) == 1 },
		),
		"Services.Limits.IdleTimeout": first(
			func(s *config.OutletService) { s.Limits.IdleTimeout = time.Minute },
			func(s *outletService) bool { return s.Limits.IdleTimeout == time.Minute },
		),
		"Services.Limits.BytesPerSecond": first(
			func(s *config.OutletService) { s.Limits.BytesPerSecond = 1 << 20 },
			func(s *outletService) bool { return s.Limits.BytesPerSecond == 1<<20 },
		),
	} {
		live[name] = field
	}
	// Of these a target is made anew, as at the start.
	was := out.offered.Load().services[0].target
	for name, change := range map[string]func(*config.TargetTLS){
		"CAFile":     func(c *config.TargetTLS) { c.CAFile = ca },
		"ServerName": func(c *config.TargetTLS) { c.ServerName = "db.example" },
		"CertFile":   func(c *config.TargetTLS) { c.CertFile, c.KeyFile = certFile, keyFile },
		"KeyFile":    func(c *config.TargetTLS) { c.CertFile, c.KeyFile = certFile, keyFile },
		"MinVersion": func(c *config.TargetTLS) { c.MinVersion = "1.3" },
	} {
		live["Services.TLS."+name] = first(
			func(s *config.OutletService) { change(s.TLS) },
			func(s *outletService) bool {
				return before != nil && s.target != was && s.TLS == before.Services[0].TLS && *s.TLS != config.TargetTLS{}
			},
		)
	}
	(&fieldsTest[config.Outlet]{settings, out.Follow, out.file, live}).run(t)
}

func TestRelayReloadTakesOrNamesEveryField(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	settings := func() *config.Relay {
		c := &config.Relay{
			Common: config.Common{Identity: key}, Listen: []config.Address{local(0)},
			Register: policy.List(id(1)), Connect: policy.List(id(1)), Extend: config.Extend{To: []config.Address{local(1)}},
		}
		c.SetDefaults()
		return c
	}
	r, _, _ := startRelay(t, *settings())
	may := func(peer identity.Identifier, what policy.Action, to string) func() bool {
		return func() bool {
			return r.policy.Decide(&policy.Request{Peer: policy.Peer{ID: peer}, Action: what, To: to}).Allowed
		}
	}
	live := liveCommon(r.base, func(c *config.Relay) (*config.Common, *config.Trust) { return &c.Common, &c.Trust })
	for name, field := range map[string]liveField[config.Relay]{
		"Register":     {func(c *config.Relay) { c.Register = policy.List(id(2)) }, may(id(2), policy.Register, "")},
		"Connect":      {func(c *config.Relay) { c.Connect = policy.List(id(2)) }, may(id(2), policy.Connect, "")},
		"Extend.To":    {func(c *config.Relay) { c.Extend.To = []config.Address{local(2)} }, may(id(1), policy.Extend, "127.0.0.1:2")},
		"Extend.Allow": {func(c *config.Relay) { c.Extend.Allow = policy.List(id(2)) }, may(id(2), policy.Extend, "127.0.0.1:1")},
	} {
		live[name] = field
	}
	(&fieldsTest[config.Relay]{settings, r.Follow, r.file, live}).run(t)
}

func TestAuthorityReloadTakesOrNamesEveryField(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	store := filepath.Join(t.TempDir(), "authority.db")
	settings := func() *config.Authority {
		c := &config.Authority{Common: config.Common{Identity: key}, Store: store, Listen: []config.Address{local(0)}}
		c.SetDefaults()
		return c
	}
	a, _ := startAuthorityOf(t, *settings())
	live := liveCommon(a.base, func(c *config.Authority) (*config.Common, *config.Trust) { return &c.Common, nil })
	delete(live, "Authorities") // it is one
	(&fieldsTest[config.Authority]{settings, a.Follow, a.file, live}).run(t)
}
