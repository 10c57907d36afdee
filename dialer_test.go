package culvert_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
)

// All that is wrong with a config is said at once, each fault with its field.
func TestConfigFaults(t *testing.T) {
	id := newIdentity(t)
	other := newIdentity(t).Identifier()
	way := "tcp://127.0.0.1:1/" + other.String()
	for name, tt := range map[string]struct {
		cfg  culvert.DialerConfig
		want []string
	}{
		"nothing":        {culvert.DialerConfig{}, []string{"Identity: there is none", "Routes: there is none"}},
		"no such file":   {culvert.DialerConfig{Config: culvert.Config{IdentityFile: "/nowhere/x.key"}, Outlet: other, Routes: []string{way}}, []string{"IdentityFile:", "/nowhere/x.key"}},
		"two identities": {culvert.DialerConfig{Config: culvert.Config{Identity: id, IdentityFile: "x"}, Outlet: other, Routes: []string{way}}, []string{"IdentityFile is set, too"}},
		"bounds": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id, Keepalive: time.Minute, Grace: time.Millisecond, Buffers: 1, ClockSkew: time.Hour, Name: "no spaces"},
			Outlet: other, Routes: []string{way}, ConnectTimeout: -1, Rekey: time.Millisecond,
		}, []string{"Keepalive: 1m0s", "Grace: 1ms", "Buffers: 1", "ClockSkew: 1h0m0s", "Name:", "ConnectTimeout: -1ns", "Rekey: 1ms"}},
		"nobody's": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id, Authorities: []identity.Identifier{other, {}}}, Outlet: other, Routes: []string{way},
		}, []string{"Authorities[1]: it is the zero identifier"}},
		"routes": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id}, Outlet: other, Routes: []string{way, "http://x", way + "," + way},
		}, []string{"Routes[1]:", "Routes[2]: hop 1 is the outlet itself"}},
		"services": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id}, Services: map[string]culvert.Way{"Big": {}, "orders": {Outlet: other}},
		}, []string{`Services["Big"]:`, "lower case", `Services["orders"].Routes: there is none`}},
		"by name without an authority": {culvert.DialerConfig{Config: culvert.Config{Identity: id}, Routes: []string{way}}, []string{"Outlet: there is none", "Authorities"}},
		"one by name without an authority": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id}, Services: map[string]culvert.Way{"orders": {Routes: []string{way}}},
		}, []string{`Services["orders"].Outlet: there is none`}},
		"credentials": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id, Ticket: "nonsense", KubernetesToken: "x", AuthorityRoutes: []string{way}, AuditStrict: true}, Outlet: other, Routes: []string{way},
		}, []string{"Ticket:", "AuditStrict: there is no audit log"}},
		"an authority that gives nothing": {culvert.DialerConfig{
			Config: culvert.Config{Identity: id, Authority: other, AuthorityRoutes: []string{way}}, Outlet: other, Routes: []string{way},
		}, []string{"Authority: there is no credential"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := culvert.NewDialer(tt.cfg)
			if err == nil {
				_ = d.Close()
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "nonsense") {
				t.Errorf("the ticket is shown: %v", err)
			}
		})
	}
	for name, tt := range map[string]struct {
		cfg  culvert.ListenerConfig
		want []string
	}{
		"nothing": {culvert.ListenerConfig{}, []string{"Identity: there is none", "Service: it has no name", "Allow: nobody could use", "Relays: nothing could reach"}},
		"both": {culvert.ListenerConfig{
			Config: culvert.Config{Identity: id}, Service: "a.b", Allow: []identity.Identifier{other}, AllowIf: "true", Listen: []string{":4000"}, MaxConns: -1,
		}, []string{"Service:", "AllowIf: Allow is set, too", "Listen[0]:", "0.0.0.0:4000", "MaxConns: -1"}},
		"bounds": {culvert.ListenerConfig{
			Config: culvert.Config{Identity: id}, Service: "a", Allow: []identity.Identifier{other, {}}, Listen: []string{"127.0.0.1:0"},
			IdleTimeout: time.Millisecond, BytesPerSecond: 1,
			More: []culvert.Service{
				{Name: "b", AllowIf: "true", IdleTimeout: 48 * time.Hour, BytesPerSecond: -1, MaxConns: -1},
				{Name: "b", AllowIf: "true"},
				{Name: "a", AllowIf: "true"},
			},
		}, []string{
			"Allow[1]: it is the zero identifier", "IdleTimeout: 1ms", "BytesPerSecond: 1: want at least 1024",
			"More[0].IdleTimeout: 48h0m0s", "More[0].BytesPerSecond: -1", "More[0].MaxConns: -1",
			`More[1].Name: there is another service "b"`, `More[2].Name: there is another service "a"`,
		}},
		"a state that cannot be": {culvert.ListenerConfig{
			Config: culvert.Config{Identity: id, State: "/nowhere/state"}, Service: "a", AllowIf: "true", Listen: []string{"127.0.0.1:0"},
		}, []string{"State:", "/nowhere/state"}},
		"an audit log that cannot be": {culvert.ListenerConfig{
			Config: culvert.Config{Identity: id, Audit: "/nowhere/audit"}, Service: "a", AllowIf: "true", Listen: []string{"127.0.0.1:0"},
		}, []string{"Audit:", "/nowhere/audit"}},
		"an expression": {culvert.ListenerConfig{
			Config: culvert.Config{Identity: id}, Service: "a", AllowIf: "peer.attr.role = 1", Listen: []string{"127.0.0.1:0"},
		}, []string{"AllowIf:"}},
	} {
		t.Run("listener, "+name, func(t *testing.T) {
			ln, err := culvert.Listen(withPatience(t), tt.cfg)
			if err == nil {
				_ = ln.Shutdown(ended())
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

// Who may not, or asks for what is not there, hears which and why, and does not wait
// for the connect time-out to hear it.
func TestRefusals(t *testing.T) {
	stranger := newIdentity(t)
	for _, tt := range []struct {
		name    string
		pairing pairing
		service string
		want    code.Code
	}{
		{"not allowed by the listener", pairing{dialer: func(c *culvert.DialerConfig) { c.Identity = stranger }}, "echo", code.StreamDenied},
		{"no such service", pairing{}, "other", code.ServiceUnknown},
		{"a name that no service has", pairing{}, "No_Service", code.ServiceUnknown},
		{"a service without a way", pairing{dialer: func(c *culvert.DialerConfig) {
			c.Services = map[string]culvert.Way{"elsewhere": {Outlet: c.Outlet, Routes: c.Routes}}
			c.Routes, c.Outlet = nil, identity.Identifier{}
		}}, "echo", code.ServiceUnknown},
		{"too many", pairing{listener: func(c *culvert.ListenerConfig) { c.MaxConns = 1 }}, "echo", code.Limit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, tt.pairing)
			if tt.want == code.Limit {
				a, b := p.conns()
				defer a.Close()
				defer b.Close()
			}
			_, err := p.d.Dial(withPatience(t), tt.service)
			wantCode(t, err, tt.want)
			var oe *net.OpError
			if !errors.As(err, &oe) || oe.Op != "dial" || oe.Timeout() {
				t.Errorf("got %#v, want a *net.OpError of the dial", err)
			}
		})
	}
}

func TestRelaysRefusals(t *testing.T) {
	t.Run("connect", func(t *testing.T) {
		r := startRelay(t, "127.0.0.1:0", newIdentity(t), relay.Config{Connect: func(channel.Peer, identity.Identifier) error { return errors.New("not you") }})
		p := newPair(t, pairing{relays: []*testRelay{r}})
		_, err := p.d.Dial(withPatience(t), "echo")
		if e := wantCode(t, err, code.ConnectDenied); !strings.Contains(e.Reason, "not you") {
			t.Errorf("reason %q, want the relay's", e.Reason)
		}
	})
	t.Run("register", func(t *testing.T) {
		r := startRelay(t, "127.0.0.1:0", newIdentity(t), relay.Config{Register: func(channel.Peer) error { return errors.New("not you") }})
		id := newIdentity(t)
		_, err := culvert.Listen(withPatience(t), culvert.ListenerConfig{
			Config: culvert.Config{Identity: id}, Service: "echo", Allow: []identity.Identifier{id.Identifier()}, Relays: []string{r.route},
		})
		if e := wantCode(t, err, code.RegisterDenied); !strings.Contains(e.Reason, "not you") {
			t.Errorf("reason %q, want the relay's", e.Reason)
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		r := newRelay(t)
		r.kill()
		id := newIdentity(t)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := culvert.Listen(ctx, culvert.ListenerConfig{
			Config: culvert.Config{Identity: id}, Service: "echo", Allow: []identity.Identifier{id.Identifier()}, Relays: []string{r.route},
		})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not registered") {
			t.Errorf("got %v, want the deadline and why", err)
		}
	})
	t.Run("another than the outlet", func(t *testing.T) {
		ln := newPair(t, pairing{}).ln
		other := newIdentity(t).Identifier()
		at := strings.Replace(ln.Routes()[0], ln.Identifier().String(), other.String(), 1)
		d := newDialer(t, culvert.DialerConfig{
			Config: culvert.Config{Identity: newIdentity(t)}, Outlet: other, Routes: []string{at}, ConnectTimeout: 2 * time.Second,
		})
		_, err := d.Dial(withPatience(t), "echo")
		wantCode(t, err, code.IdentityDenied)
	})
}

// A dial ends when its context does, and says so; the dialer goes on.
func TestDialsCanBeCancelled(t *testing.T) {
	r := newRelay(t)
	r.kill()
	d := newDialer(t, culvert.DialerConfig{
		Config: culvert.Config{Identity: newIdentity(t)}, Outlet: newIdentity(t).Identifier(), Routes: []string{r.route}, ConnectTimeout: patience,
	})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := d.Dial(ctx, "echo")
		failed <- err
	}()
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := d.Dial(ctx, "echo")
	var ne net.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("after its deadline: %v", err)
	}
	// One that waits when the dialer is closed.
	go func() {
		_, err := d.Dial(context.Background(), "echo")
		failed <- err
	}()
	time.Sleep(20 * time.Millisecond) // whether or not it has begun
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	err = <-failed
	if e := wantCode(t, err, code.Shutdown); !errors.Is(err, net.ErrClosed) || !strings.Contains(e.Reason, "closed") {
		t.Errorf("at a dialer that was closed: %v", err)
	}
	_, err = d.Dial(context.Background(), "echo")
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("at a closed dialer: %v", err)
	}
}

// A dial waits for a relay that is not there yet.
func TestDialWaitsForTheRelay(t *testing.T) {
	r := newRelay(t)
	p := newPair(t, pairing{relays: []*testRelay{r}})
	p.serve(echo)
	r.kill()
	dialing := make(chan error, 1)
	go func() {
		c, err := p.d.Dial(withPatience(t), "echo")
		if err == nil {
			_ = c.Close()
		}
		dialing <- err
	}()
	select {
	case err := <-dialing:
		t.Fatalf("dialled without a relay: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	startRelay(t, r.addr, r.id, relay.Config{})
	if err := <-dialing; err != nil {
		t.Error(err)
	}
}

func TestDialContext(t *testing.T) {
	p := newPair(t, pairing{})
	p.serve(echo)
	for _, tt := range []struct {
		network, address string
		works            bool
	}{
		{"tcp", "echo", true},
		{"tcp", "echo:80", true},
		{"tcp4", "echo:http", true},
		{"tcp6", "echo:0", true},
		{p.ln.Addr().Network(), "echo", true},
		{"udp", "echo:80", false},
		{"unix", "echo", false},
		{"tcp", "echo:80:90", false},
		{"tcp", "", false},
		{"tcp", ":80", false},
		{"tcp", "Echo:80", false},
		{"tcp", "echo.example:80", false},
		{"tcp", "\x1b[1m:80", false},
	} {
		c, err := p.d.DialContext(withPatience(t), tt.network, tt.address)
		if (err == nil) != tt.works {
			t.Errorf("%s %q: %v", tt.network, tt.address, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("the error does things to a terminal: %q", err)
			}
			if c != nil {
				t.Errorf("%s %q: a conn and an error", tt.network, tt.address)
			}
			continue
		}
		_ = c.Close()
	}
}

// Dial for once leaves nothing behind.
func TestDialOnce(t *testing.T) {
	p := newPair(t, pairing{})
	p.serve(echo)
	id := newIdentity(t)
	cfg := culvert.DialerConfig{Config: culvert.Config{Identity: id}, Outlet: p.ln.Identifier(), Routes: p.ln.Routes()}
	_, err := culvert.Dial(withPatience(t), cfg, "echo")
	wantCode(t, err, code.StreamDenied)
	if oe, ok := err.(*net.OpError); !ok || oe.Op != "dial" { // as whoever asserts a net.Error wants it
		t.Errorf("the error is a %T, want a *net.OpError of the dial", err)
	}

	current := goleak.IgnoreCurrent()
	own := newIdentity(t)
	ln := listen(t, culvert.ListenerConfig{
		Config: culvert.Config{Identity: newIdentity(t)}, Service: "echo", Allow: []identity.Identifier{own.Identifier()}, Listen: []string{"127.0.0.1:0"},
	})
	stop := (&pair{t: t, ln: ln}).serve(echo)
	c, err := culvert.Dial(withPatience(t), culvert.DialerConfig{Config: culvert.Config{Identity: own}, Outlet: ln.Identifier(), Routes: ln.Routes()}, "echo")
	if err != nil {
		t.Fatal(err)
	}
	wantEcho(t, c, "hello")
	_ = c.Close()
	stop()
	goleak.VerifyNone(t, current)
}

// Nor does it wait for a path when it is closed.
func TestDialOnceClosesWithoutPath(t *testing.T) {
	r, own := newRelay(t), newIdentity(t)
	ln := listen(t, culvert.ListenerConfig{
		Config:  culvert.Config{Identity: newIdentity(t), Grace: time.Hour},
		Service: "echo", Allow: []identity.Identifier{own.Identifier()}, Relays: []string{r.route},
	})
	(&pair{t: t, ln: ln}).serve(func(c *culvert.Conn) { _, _ = io.Copy(io.Discard, c) })
	c, err := culvert.Dial(withPatience(t), culvert.DialerConfig{
		Config: culvert.Config{Identity: own, Grace: time.Hour, Buffers: 1 << 20}, Outlet: ln.Identifier(), Routes: ln.Routes(),
	}, "echo")
	if err != nil {
		t.Fatal(err)
	}
	r.kill()
	fillPath(t, c)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = c.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close waits for a path")
	}
}

// fillPath writes until a deadline ends the wait for a frame that is on its way, so that
// all that was written counts as sent.
func fillPath(t *testing.T, c *culvert.Conn) {
	t.Helper()
	for full := false; !full; {
		_ = c.SetWriteDeadline(time.Time{})
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 4<<10)) // one frame
			written <- err
		}()
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(500 * time.Millisecond):
			_ = c.SetWriteDeadline(time.Now())
			err := <-written
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			full = err == nil // else it was about to begin, and is written again
		}
	}
}

// A hundred dialers at once, several dials of each at once; nothing is left of them.
func TestHundredDialers(t *testing.T) {
	const dialers, dials = 100, 4
	var ids []*identity.Identity
	var allowed []identity.Identifier
	for range dialers {
		id := newIdentity(t)
		ids, allowed = append(ids, id), append(allowed, id.Identifier())
	}
	current := goleak.IgnoreCurrent()
	p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) { c.Allow = append(c.Allow, allowed...) }})
	stop := p.serve(echo)
	few := make(chan struct{}, 100) // fewer than a listener has wait for Accept
	var working sync.WaitGroup
	for _, id := range ids {
		working.Go(func() {
			d, err := culvert.NewDialer(culvert.DialerConfig{
				Config: culvert.Config{Identity: id}, Outlet: p.ln.Identifier(), Routes: p.ln.Routes(), ConnectTimeout: patience,
			})
			if err != nil {
				t.Error(err)
				return
			}
			var dialing sync.WaitGroup
			for range dials {
				dialing.Go(func() {
					few <- struct{}{}
					defer func() { <-few }()
					c, err := d.Dial(withPatience(t), "echo")
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(patience))
					if _, err := c.Write([]byte("hello")); err != nil {
						t.Error(err)
					}
					if n, err := c.Read(make([]byte, 5)); n == 0 {
						t.Error(err)
					}
				})
			}
			dialing.Wait()
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	stop()
	goleak.VerifyNone(t, current)
}

// Dials, closes and the dialer's own end at once: whatever wins, nothing hangs.
func TestCloseWhileDialing(t *testing.T) {
	for range 10 {
		p := newPair(t, pairing{})
		p.serve(echo)
		var working sync.WaitGroup
		for range 8 {
			working.Go(func() {
				for {
					c, err := p.d.Dial(withPatience(t), "echo")
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("dialling: %v", err)
						}
						return
					}
					_, _ = c.Write([]byte("hello"))
					_ = c.Close()
				}
			})
		}
		time.Sleep(10 * time.Millisecond) // so that it comes among the dials; wherever it comes, all has to hold
		working.Go(func() {
			if err := p.d.Close(); err != nil {
				t.Error(err)
			}
		})
		working.Wait()
	}
}

// A dialer knows so many services, and forgets those that it does not use.
func TestServicesAreBounded(t *testing.T) {
	p := newPair(t, pairing{})
	p.serve(echo)
	kept, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for i := range 300 {
		_, err := p.d.Dial(withPatience(t), "s"+string(rune('a'+i%26))+string(rune('a'+i/26)))
		wantCode(t, err, code.ServiceUnknown)
	}
	wantEcho(t, kept, "still here")
}

// What is told goes where the config says, and nowhere else.
func TestLogAndMetrics(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	reg := prometheus.NewRegistry()
	p := newPair(t, pairing{
		listener: func(c *culvert.ListenerConfig) {
			c.Log, c.Metrics = zap.New(core), prometheus.WrapRegistererWith(prometheus.Labels{"end": "a"}, reg)
		},
		dialer: func(c *culvert.DialerConfig) {
			c.Log, c.Metrics = zap.New(core), prometheus.WrapRegistererWith(prometheus.Labels{"end": "b"}, reg)
		},
	})
	p.serve(echo)
	c, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	wantEcho(t, c, "hello")
	if all, err := reg.Gather(); err != nil || len(all) == 0 {
		t.Errorf("%d metrics, %v", len(all), err)
	}
	_ = c.Close()
	if err := p.d.Shutdown(withPatience(t)); err != nil {
		t.Error(err)
	}
	if err := p.ln.Shutdown(withPatience(t)); err != nil {
		t.Error(err)
	}
	names := map[string]bool{}
	for _, l := range lines.All() {
		names[l.LoggerName] = true
		if l.Level > zap.InfoLevel {
			t.Errorf("logs %s: %s %v", l.Level, l.Message, l.ContextMap())
		}
	}
	if len(names) != 2 || !names["culvert.inlet"] || !names["culvert.outlet"] {
		t.Errorf("loggers %v, want culvert.inlet and culvert.outlet", names)
	}
	if all, err := reg.Gather(); err != nil || len(all) > 0 {
		t.Errorf("%d metrics after the end, %v", len(all), err)
	}
	// The same metrics twice are an error of the second one.
	reg = prometheus.NewRegistry()
	p = newPair(t, pairing{dialer: func(c *culvert.DialerConfig) { c.Metrics = reg }})
	if _, err := culvert.NewDialer(culvert.DialerConfig{
		Config: culvert.Config{Identity: newIdentity(t), Metrics: reg}, Outlet: p.ln.Identifier(), Routes: p.ln.Routes(),
	}); err == nil || !strings.Contains(err.Error(), "Metrics") {
		t.Errorf("a second dialer with the same metrics: %v", err)
	}
}
