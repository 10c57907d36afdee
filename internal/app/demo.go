package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// DemoOptions are the settings of [Demo]. The zero value is the default.
type DemoOptions struct {
	Port     uint16    // of 127.0.0.1, where the inlet accepts clients; 0: a free one
	Log      io.Writer // of the three processes; nil: nowhere
	LogLevel string    // "": info
}

// demoService is the name of the service that the demo offers.
const demoService = "hello"

// demoTime bounds everything up to the demo's report.
const demoTime = 15 * time.Second

// Demo runs the whole system in this process: a relay, an outlet with a small
// HTTP service behind it, and an inlet, each as its command would run it, with
// fresh identities in a temporary folder. It makes a request through them,
// writes what each part saw to stdout, and how to try more, and stays up until
// ctx ends. What it started and made is gone when it returns.
func Demo(ctx context.Context, stdout io.Writer, opt DemoOptions) (err error) {
	d := &demo{opt: opt, failed: make(chan error, 3)}
	defer func() { err = errors.Join(err, d.stop()) }()
	startCtx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	if err := d.start(startCtx); err != nil {
		return fmt.Errorf("starting the demo: %w", err)
	}
	r, err := d.ask(startCtx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making the demo's request: %w", err)
	}
	if _, err := stdout.Write(d.report(r)); err != nil {
		return fmt.Errorf("writing the demo's report: %w", err)
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "\nStopping.")
		return nil
	case err := <-d.failed:
		return err
	}
}

// A demo is what Demo has started, and how to stop it again.
type demo struct {
	opt     DemoOptions
	folder  string
	service *demoHTTP
	tap     *tap // stands before the relay
	relay   *Relay
	outlet  *Outlet
	inlet   *Inlet

	failed chan error     // of a process that has ended by itself
	undo   []func() error // in the order of starting
}

// stop undoes everything, the last first.
func (d *demo) stop() error {
	var errs []error
	for i := len(d.undo) - 1; i >= 0; i-- {
		errs = append(errs, d.undo[i]())
	}
	return errors.Join(errs...)
}

// start starts the parts, each behind the one that it needs.
func (d *demo) start(ctx context.Context) error {
	var err error
	if d.folder, err = os.MkdirTemp("", "culvert-demo-"); err != nil {
		return err
	}
	d.undo = append(d.undo, func() error { return os.RemoveAll(d.folder) })
	var ids [3]identity.Identifier
	for i, name := range []string{"relay", "outlet", "inlet"} {
		if ids[i], err = d.identity(name); err != nil {
			return err
		}
	}
	relayID, outletID, inletID := ids[0], ids[1], ids[2]
	if d.service, err = startDemoHTTP(ctx); err != nil {
		return err
	}
	d.undo = append(d.undo, d.service.stop)
	if err := d.startRelay(ctx, outletID, inletID); err != nil {
		return err
	}
	if d.tap, err = startTap(ctx, d.relay.Addrs()[0].String()); err != nil {
		return err
	}
	d.undo = append(d.undo, d.tap.stop)
	if err := d.startOutlet(ctx, relayID, inletID); err != nil {
		return err
	}
	return d.startInlet(ctx, relayID, outletID)
}

// identity makes the identity of one part.
func (d *demo) identity(name string) (identity.Identifier, error) {
	id, err := identity.New(time.Now())
	if err != nil {
		return identity.Identifier{}, err
	}
	return id.Identifier(), id.WriteFile(d.file(name))
}

func (d *demo) file(name string) string { return filepath.Join(d.folder, name+".key") }

func (d *demo) common(name string) config.Common {
	return config.Common{Identity: d.file(name), Admin: "127.0.0.1:0", DrainTimeout: 2 * time.Second}
}

func (d *demo) obs(name string) (*obs.Obs, error) {
	out := d.opt.Log
	if out == nil {
		out = io.Discard
	}
	return obs.New(obs.Config{Command: name, LogLevel: d.opt.LogLevel, LogOutput: out})
}

func (d *demo) startRelay(ctx context.Context, outlet, inlet identity.Identifier) error {
	o, err := d.obs("relay")
	if err != nil {
		return err
	}
	d.relay, err = NewRelay(&config.Relay{
		Common: d.common("relay"), Listen: []config.Address{loopback(0)},
		Register: policy.List(outlet), Connect: policy.List(inlet),
	}, o)
	if err != nil {
		return err
	}
	return d.launch(ctx, "relay", d.relay)
}

func (d *demo) startOutlet(ctx context.Context, relay, inlet identity.Identifier) error {
	o, err := d.obs("outlet")
	if err != nil {
		return err
	}
	d.outlet, err = NewOutlet(&config.Outlet{
		Common: d.common("outlet"), Relays: []route.Route{hopAt(d.relay.Addrs()[0], relay)},
		Services: []config.OutletService{{
			Name: demoService, Target: addressOf(d.service.addr()), Allow: policy.List(inlet),
		}},
	}, o)
	if err != nil {
		return err
	}
	return d.launch(ctx, "outlet", d.outlet)
}

func (d *demo) startInlet(ctx context.Context, relay, outlet identity.Identifier) error {
	o, err := d.obs("inlet")
	if err != nil {
		return err
	}
	d.inlet, err = NewInlet(&config.Inlet{
		Common: d.common("inlet"),
		Services: []config.InletService{{
			Listen: loopback(d.opt.Port), Service: demoService, Outlet: outlet, Routes: []route.Route{hopAt(d.tap.addr(), relay)},
		}},
	}, o)
	if err != nil {
		return err
	}
	err = d.launch(ctx, "inlet", d.inlet)
	var op *net.OpError
	if d.opt.Port != 0 && errors.As(err, &op) {
		// The setting that the inlet names is not one that a person has given.
		return fmt.Errorf("%w: --port: choose another, or leave it out to take a free one", op)
	}
	return err
}

// A process is an Inlet, an Outlet or a Relay.
type process interface {
	Listen(ctx context.Context) error
	Run(ctx context.Context) error
}

// launch runs a process until the demo stops.
func (d *demo) launch(ctx context.Context, name string, p process) error {
	if err := p.Listen(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := p.Run(ctx)
		if ctx.Err() == nil {
			d.failed <- fmt.Errorf("the %s ended: %w", name, err)
		}
		done <- err
	}()
	d.undo = append(d.undo, func() error {
		cancel()
		return <-done
	})
	return nil
}

// A demoResult is what one request through the system has shown.
type demoResult struct {
	secret          string // which the client sent and the service returned
	sent, answered  []byte // at the client
	got             []byte // at the service
	relayed         []byte // of what came from the inlet, the part that holds the request
	searched, found int    // bytes passed through the relay, and how often the secret is in them
}

// ask makes one request through the inlet, as any client would.
func (d *demo) ask(ctx context.Context) (*demoResult, error) {
	// The handshakes are over before the request begins, so that what the tap
	// has from then on is the request.
	h, err := d.inlet.allLinks()[0].acquire(ctx)
	if err != nil {
		return nil, err
	}
	h.release()
	begin := d.tap.up.len()
	secret := make([]byte, 8)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	r := &demoResult{secret: "culvert-demo-secret-" + hex.EncodeToString(secret)}
	r.sent = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		d.inlet.Addrs()[0], len(r.secret), r.secret)
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", d.inlet.Addrs()[0].String())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := nc.Write(r.sent); err != nil {
		return nil, err
	}
	if r.answered, err = io.ReadAll(nc); err != nil {
		return nil, err
	}
	if !bytes.Contains(r.answered, []byte(r.secret)) {
		return nil, fmt.Errorf("the service's answer is not what was expected: %q", r.answered)
	}
	r.got = d.service.lastRequest()
	up, down := d.tap.up.bytes(), d.tap.down.bytes()
	r.relayed = up[begin:]
	r.searched = len(up) + len(down)
	r.found = bytes.Count(up, []byte(r.secret)) + bytes.Count(down, []byte(r.secret))
	if r.found > 0 {
		return nil, fmt.Errorf("the relay has seen the request in the clear: %q", r.secret)
	}
	return r, nil
}

func loopback(port uint16) config.Address { return config.Address{Host: "127.0.0.1", Port: port} }

// addressOf returns a TCP listener's address as settings have it.
func addressOf(a net.Addr) config.Address {
	ta := a.(*net.TCPAddr)
	return config.Address{Host: ta.IP.String(), Port: uint16(ta.Port)}
}

func hopAt(a net.Addr, id identity.Identifier) route.Route {
	at := addressOf(a)
	return route.Route{{Host: at.Host, Port: at.Port, Identifier: id}}
}
