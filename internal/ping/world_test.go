package ping

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is to happen.
const patience = time.Minute

// A world is identities and running processes, as their settings files have them.
type world struct {
	t   *testing.T
	dir string
	ids map[string]string
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), ids: map[string]string{}}
}

// id returns the identifier of that name, which it makes.
func (w *world) id(name string) string {
	w.t.Helper()
	if w.ids[name] == "" {
		id, err := identity.New(time.Now().Add(-time.Minute))
		if err == nil {
			err = id.WriteFile(filepath.Join(w.dir, name+".key"))
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.ids[name] = id.Identifier().String()
	}
	return w.ids[name]
}

// file writes settings in which <NAME> stands for identifiers.
func (w *world) file(name, settings string) config.Source {
	w.t.Helper()
	for {
		before, rest, ok := strings.Cut(settings, "<")
		if !ok {
			break
		}
		name, after, _ := strings.Cut(rest, ">")
		settings = before + w.id(name) + after
	}
	path := filepath.Join(w.dir, name+".yaml")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		w.t.Fatal(err)
	}
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.AddFlagSet(config.Flags(config.KindInlet))
	if err := flags.Parse([]string{"--config", path}); err != nil {
		w.t.Fatal(err)
	}
	return config.Source{Flags: flags}
}

func (w *world) obs(kind string) *obs.Obs {
	w.t.Helper()
	o, err := obs.New(obs.Config{Command: kind, LogOutput: io.Discard})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// A node is a process that runs.
type node interface {
	Listen(ctx context.Context) error
	Run(ctx context.Context) error
	Addrs() []net.Addr
}

// run runs a process until the test's end or until stop is called.
func (w *world) run(n node, err error) (stop func()) {
	w.t.Helper()
	if err == nil {
		err = n.Listen(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// A relay lets the outlet in, and the inlet, unless more says otherwise.
func (w *world) relay(name, address, more string) (*app.Relay, func()) {
	w.t.Helper()
	settings := fmt.Sprintf("identity: %s.key\nlisten: ['tcp://%s']\ndrain_timeout: 1ms\nregister: ['<outlet>', '<inlet>']\n", name, address)
	if !strings.Contains(more, "connect:") {
		more += "connect: ['<inlet>']\n"
	}
	w.id(name)
	cfg, err := config.LoadRelay(w.file(name, settings+more))
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := app.NewRelay(cfg, w.obs("relay"))
	return r, w.run(r, err)
}

// hop is where a process listens that has that identity.
func (w *world) hop(n node, name string) string {
	w.t.Helper()
	return "tcp://" + n.Addrs()[0].String() + "/" + w.id(name)
}

// outlet starts one that offers echo, refused (whose target is) and denied, and waits
// until its relays know it.
func (w *world) outlet(listen string, relays ...string) *app.Outlet {
	w.t.Helper()
	settings := "identity: outlet.key\ndrain_timeout: 1ms\nservices:\n"
	for _, s := range [][3]string{{"echo", w.echo(), "<inlet>"}, {"refused", freeAddress(w.t), "<inlet>"}, {"denied", w.echo(), "<another>"}} {
		settings += fmt.Sprintf("  - {name: %s, target: 'tcp://%s', allow: ['%s']}\n", s[0], s[1], s[2])
	}
	if listen != "" {
		settings += fmt.Sprintf("listen: ['tcp://%s']\n", listen)
	}
	if len(relays) > 0 {
		settings += fmt.Sprintf("relays: ['%s']\n", strings.Join(relays, "', '"))
	}
	w.id("outlet")
	cfg, err := config.LoadOutlet(w.file("outlet", settings))
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := app.NewOutlet(cfg, w.obs("outlet"))
	w.run(out, err)
	w.registered(out, len(relays))
	return out
}

// registered waits until an outlet is, at so many relays.
func (w *world) registered(out *app.Outlet, relays int) {
	w.t.Helper()
	w.eventually("the outlet is registered", func() bool {
		n := 0
		for _, g := range out.Status().Registrations {
			if g.Registered {
				n++
			}
		}
		return n == relays
	})
}

// echo runs a TCP server that sends back what it gets, and returns its address.
func (w *world) echo() string {
	w.t.Helper()
	return serve(w.t, func(nc net.Conn) { _, _ = io.Copy(nc, nc) })
}

func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				handle(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// freeAddress returns an address that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// inlet returns the settings of an inlet of that service over these routes.
func (w *world) inlet(service string, routes ...string) *config.Inlet {
	w.t.Helper()
	w.id("inlet")
	cfg, err := config.LoadInletWays(w.file("inlet", fmt.Sprintf("identity: inlet.key\nkeepalive: 5s\nservices:\n  - {service: %s, outlet: <outlet>, routes: ['%s']}\n",
		service, strings.Join(routes, "', '"))))
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// ping measures, and returns what it has found and what people read of it.
func (w *world) ping(ctx context.Context, c Config) (*Report, string) {
	w.t.Helper()
	return w.pingWith(ctx, c, func(*Pinger) {})
}

// pingWith is ping with something done to the Pinger before it runs.
func (w *world) pingWith(ctx context.Context, c Config, prepare func(p *Pinger)) (*Report, string) {
	w.t.Helper()
	var text strings.Builder
	printer := NewPrinter(&text)
	c.Trace = printer.Trace()
	if c.Interval == 0 {
		c.Interval = time.Millisecond
	}
	p, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	prepare(p)
	r := p.Run(ctx)
	if err := printer.Summary(r); err != nil {
		w.t.Fatal(err)
	}
	return r, text.String()
}
