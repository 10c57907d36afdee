package app

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/internal/trace/tracetest"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// tracingTo are settings that record the share of what begins here.
func tracingTo(c *tracetest.Collector, share float64) config.Tracing {
	return config.Tracing{Endpoint: c.URL + "/v1/traces", Sample: &share, SpansPerSecond: 1000}
}

// spanOf returns the first span of that name and kind, or nil.
func spanOf(spans []tracetest.Span, kind, name string) *tracetest.Span {
	for i := range spans {
		if spans[i].Kind == kind && spans[i].Name == name {
			return &spans[i]
		}
	}
	return nil
}

// wantTree waits for the spans of one stream to the service echo, which are a tree: the
// inlet's, the outlet's below it, and, where there was a dial, that one's below.
func wantTree(t *testing.T, c *tracetest.Collector, dialed bool) (in, out, dial *tracetest.Span) {
	t.Helper()
	c.Wait(t, patience, "the spans of both sides", func(spans []tracetest.Span) bool {
		in, out, dial = spanOf(spans, "CLIENT", "stream echo"), spanOf(spans, "SERVER", "stream echo"), spanOf(spans, "CLIENT", "dial echo")
		return in != nil && out != nil && (dial != nil) == dialed
	})
	if in.Parent != "" || out.Parent != in.SpanID || !out.RemoteParent || out.TraceID != in.TraceID {
		t.Errorf("inlet's %s/%s, parent %q; outlet's %s/%s, parent %s: want one below the other", in.TraceID, in.SpanID, in.Parent, out.TraceID, out.SpanID, out.Parent)
	}
	if dialed && (dial.Parent != out.SpanID || dial.TraceID != in.TraceID || dial.RemoteParent) {
		t.Errorf("dial's %s/%s, parent %s: want it below the outlet's", dial.TraceID, dial.SpanID, dial.Parent)
	}
	return in, out, dial
}

// wantOrder fails where times are not in order. Where they are those of two clocks, it is
// one of one machine.
func wantOrder(t *testing.T, times ...any) {
	t.Helper()
	for i := 0; i+3 < len(times); i += 2 {
		if a, b := times[i+1].(time.Time), times[i+3].(time.Time); a.After(b) {
			t.Errorf("%v is at %v, after %v at %v", times[i], a, times[i+2], b)
		}
	}
}

func eventOf(t *testing.T, s *tracetest.Span, name string) time.Time {
	t.Helper()
	at, ok := s.Has(name)
	if !ok {
		t.Errorf("%s %s has no event %q: %+v", s.Kind, s.Name, name, s.Events)
	}
	return at
}

func wantAttrs(t *testing.T, s *tracetest.Span, want map[string]any) {
	t.Helper()
	for name, v := range want {
		if got := s.Attrs[name]; got != v {
			t.Errorf("%s %s: %s is %v, want %v", s.Kind, s.Name, name, got, v)
		}
	}
}

// TestTraceOfAStream: one trace shows both sides, in the order of what happens.
func TestTraceOfAStream(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	asked, answer := make(chan struct{}), make(chan struct{})
	sys := startSystem(t, setup{
		target: serveTCP(t, func(nc *net.TCPConn) {
			_, _ = io.ReadFull(nc, make([]byte, 5))
			close(asked)
			<-answer
			_, _ = nc.Write([]byte("worldly"))
			_, _ = io.Copy(io.Discard, nc)
		}),
		inlet:  func(cfg *config.Inlet) { cfg.Tracing, cfg.Name = tracingTo(c, 1), "blue" },
		outlet: func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 0) },
	})
	before := time.Now()
	nc := sys.dial(t)
	if _, err := nc.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	<-asked
	released := time.Now()
	close(answer)
	if _, err := io.ReadFull(nc, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	answered := time.Now()
	if err := nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	in, out, dial := wantTree(t, c, true)
	wantOrder(t, "the dial", before, "accepted", in.Start, "channel", eventOf(t, in, trace.EventChannel), "OPEN sent", eventOf(t, in, trace.EventOpenSent),
		"the target's answer", released, "first byte", eventOf(t, in, trace.EventFirstByte), "the client has it", answered, "end", in.End)
	wantOrder(t, "accepted", in.Start, "OPEN received", out.Start, "policy", eventOf(t, out, trace.EventDecided), "dial", dial.Start, "dialled", dial.End,
		"the target's answer", released, "first byte", eventOf(t, out, trace.EventFirstByte), "the client has it", answered, "end", out.End)
	ch := sys.inlet.allLinks()[0].sessions()[0].session.(*lasting).ch
	both := map[string]any{
		trace.AttrService: "echo", trace.AttrChannel: ch.ID().String(), trace.AttrCode: "ok", trace.AttrToService: int64(5), trace.AttrToClient: int64(7),
		trace.AttrStream: in.Attrs[trace.AttrStream], "error.type": nil, trace.AttrClientAddress: nil,
	}
	for s, peer := range map[*tracetest.Span]string{in: sys.outlet.Identifier().String(), out: sys.inlet.Identifier().String()} {
		wantAttrs(t, s, both)
		wantAttrs(t, s, map[string]any{trace.AttrPeer: peer})
		if s.Error != "" || !strings.HasPrefix(s.Attrs[trace.AttrRoute].(string), "tcp://127.0.0.1:") {
			t.Errorf("%s: error %q, route %v", s.Kind, s.Error, s.Attrs[trace.AttrRoute])
		}
	}
	wantAttrs(t, in, map[string]any{trace.AttrPeerInstance: sys.outlet.local.Instance().String()})
	wantAttrs(t, out, map[string]any{trace.AttrPeerInstance: sys.inlet.local.Instance().String()})
	wantAttrs(t, dial, map[string]any{trace.AttrCode: "ok", trace.AttrServerAddress: "127.0.0.1", "error.type": nil})
	for s, want := range map[*tracetest.Span][]any{in: {"culvert-inlet", sys.inlet.Identifier().String(), "blue"}, out: {"culvert-outlet", sys.outlet.Identifier().String(), nil}} {
		if r := s.Resource; r["service.name"] != want[0] || r["culvert.identifier"] != want[1] || r["culvert.name"] != want[2] {
			t.Errorf("resource %v, want %v", r, want)
		}
	}
	eventually(t, "the inlet counts its span", func() bool {
		return metric(t, sys.inlet.obs, "culvert_tracing_spans_total", "exported") == 1
	})
}

// TestTraceClientAddress: it is there where settings say so, on each side for itself.
func TestTraceClientAddress(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		inlet: func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet: func(cfg *config.Outlet) {
			cfg.Tracing = tracingTo(c, 0)
			cfg.Tracing.ClientAddress = true
		},
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	_ = nc.CloseWrite()
	in, out, _ := wantTree(t, c, true)
	wantAttrs(t, in, map[string]any{trace.AttrClientAddress: nil})
	wantAttrs(t, out, map[string]any{trace.AttrClientAddress: nc.LocalAddr().String()})
}

// TestTraceOfRefusals: what did not come to be says why, on both sides, and nothing of
// addresses.
func TestTraceOfRefusals(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	closed := local(testenv.Port(t))
	sys := startSystem(t, setup{
		target: closed,
		inlet:  func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet: func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 0) },
	})
	wantReset(t, sys.dial(t))
	in, out, dial := wantTree(t, c, true)
	for _, s := range []*tracetest.Span{in, out, dial} {
		wantAttrs(t, s, map[string]any{trace.AttrCode: "target_refused", "error.type": "target_refused"})
		if s.Error != "target_refused" {
			t.Errorf("%s %s: error %q", s.Kind, s.Name, s.Error)
		}
	}
	if _, ok := in.Has(trace.EventFirstByte); ok {
		t.Error("a first byte, of none")
	}
}

// TestTraceOfUnknownService: a peer makes no names of spans.
func TestTraceOfUnknownService(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		service: "nothing",
		inlet:   func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet:  func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 0) },
	})
	wantReset(t, sys.dial(t))
	c.Wait(t, patience, "both spans", func(spans []tracetest.Span) bool {
		in, out := spanOf(spans, "CLIENT", "stream nothing"), spanOf(spans, "SERVER", "stream")
		return in != nil && out != nil && out.Parent == in.SpanID && out.Attrs[trace.AttrCode] == "service_unknown" && out.Attrs[trace.AttrService] == "nothing"
	})
}

// TestTraceOfPaths: what happens to the channel's path is in the spans of its streams.
func TestTraceOfPaths(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	relayKey, relayID := newIdentity(t)
	port := testenv.Port(t)
	var rc config.Relay
	sys := startSystem(t, setup{
		relay: func(cfg *config.Relay) {
			cfg.Identity, cfg.Listen, cfg.DrainTimeout = relayKey, []config.Address{local(port)}, time.Millisecond
			rc = *cfg
		},
		outlet: func(cfg *config.Outlet) {
			cfg.Relays, cfg.Tracing = []route.Route{withIdentity(cfg.Relays[0], relayID)}, tracingTo(c, 0)
		},
		inlet: func(cfg *config.Inlet) {
			cfg.Services[0].Routes = []route.Route{withIdentity(cfg.Services[0].Routes[0], relayID)}
			cfg.ConnectTimeout, cfg.Tracing = patience, tracingTo(c, 1)
		},
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopRelay()
	eventually(t, "not ready", func() bool { ok, _ := sys.inlet.obs.Ready.Check(); return !ok })
	startRelay(t, rc)
	wantEcho(t, nc, "still here")
	_ = nc.CloseWrite()
	in, out, _ := wantTree(t, c, true)
	for _, s := range []*tracetest.Span{in, out} {
		wantOrder(t, "first byte", eventOf(t, s, trace.EventFirstByte), "path lost", eventOf(t, s, trace.EventPathLost),
			"path changed", eventOf(t, s, trace.EventPathChanged), "end", s.End)
		for _, e := range s.Events {
			if e.Name != trace.EventPathChanged {
				continue
			}
			if e.Attrs[trace.AttrCause] != "lost" || e.Attrs[trace.AttrRoute] == nil {
				t.Errorf("%s: %+v", s.Kind, e)
			}
			break // what the outlet has asked for when the relay drained may come now, and be a change, too
		}
	}
	for _, tr := range []*trace.Tracer{sys.inlet.tracer, sys.outlet.tracer} {
		if s := tr.Stats(); s.Dropped+s.Failed+s.Rejected+s.Limited != 0 {
			t.Errorf("got %+v", s)
		}
	}
}

// TestTraceBeginsAtTheOutlet where the inlet traces nothing.
func TestTraceBeginsAtTheOutlet(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{outlet: func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 1) }})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	_ = nc.CloseWrite()
	spans := c.Wait(t, patience, "two spans", func(spans []tracetest.Span) bool { return len(spans) == 2 })
	if out, dial := spanOf(spans, "SERVER", "stream echo"), spanOf(spans, "CLIENT", "dial echo"); out == nil || dial == nil || out.Parent != "" || dial.Parent != out.SpanID {
		t.Errorf("got %+v", spans)
	}
}

// TestTraceNotSampled: what the inlet does not record, the outlet does not either,
// whatever it records of its own.
func TestTraceNotSampled(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		inlet:  func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 0) },
		outlet: func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 1) },
	})
	for range 20 {
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		_ = nc.Close()
	}
	sys.stopInlet()
	sys.stopOutlet()
	if n := len(c.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

// TestTraceLimit: an inlet that asks for all of its streams gets what the outlet's rate
// gives, and all of its streams.
func TestTraceLimit(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		inlet: func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet: func(cfg *config.Outlet) {
			cfg.Tracing = tracingTo(c, 0)
			cfg.Tracing.SpansPerSecond = 1
		},
	})
	began := time.Now()
	const n = 50
	for range n {
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		_ = nc.Close()
	}
	sys.stopInlet()
	sys.stopOutlet()
	most := 1 + int(time.Since(began).Seconds()) + 1
	got := 0
	for _, s := range c.Spans() {
		if s.Kind == "SERVER" {
			got++
		}
	}
	if got < 1 || got > most || got >= n {
		t.Errorf("the outlet has recorded %d streams, want 1 to %d", got, most)
	}
	if limited := metric(t, sys.outlet.obs, "culvert_tracing_spans_total", "limited"); limited != float64(n-got) {
		t.Errorf("%v were limited, want %d", limited, n-got)
	}
}

// TestTraceOfStrangers: who may use nothing here costs no spans.
func TestTraceOfStrangers(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		inlet: func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet: func(cfg *config.Outlet) {
			cfg.Tracing = tracingTo(c, 1)
			_, other := newIdentity(t)
			cfg.Services[0].Allow = policy.List(other)
		},
	})
	wantReset(t, sys.dial(t))
	sys.stopInlet()
	sys.stopOutlet()
	spans := c.Spans()
	if len(spans) != 1 || spans[0].Resource["service.name"] != "culvert-inlet" || spans[0].Attrs[trace.AttrCode] != "stream_denied" {
		t.Errorf("got %+v, want the inlet's alone", spans)
	}
}

// TestTraceWithoutChannel: who waits in vain is in a trace, too.
func TestTraceWithoutChannel(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	sys := startSystem(t, setup{
		relay: func(cfg *config.Relay) { cfg.Connect = policy.List() },
		inlet: func(cfg *config.Inlet) { cfg.Tracing, cfg.ConnectTimeout = tracingTo(c, 1), 100*time.Millisecond },
	})
	wantReset(t, sys.dial(t))
	spans := c.Wait(t, patience, "a span", func(spans []tracetest.Span) bool { return len(spans) == 1 })
	if _, ok := spans[0].Has(trace.EventChannel); ok || spans[0].Error == "" || spans[0].End.Sub(spans[0].Start) < 100*time.Millisecond {
		t.Errorf("got %+v, want an error after the time-out, and no channel", spans[0])
	}
}

// TestTraceCollectorIsAway: streams do not notice, and one line says so.
func TestTraceCollectorIsAway(t *testing.T) {
	t.Parallel()
	c, srv := tracetest.Start(t, false)
	srv.Close()
	sys := startSystem(t, setup{
		inlet:  func(cfg *config.Inlet) { cfg.Tracing = tracingTo(c, 1) },
		outlet: func(cfg *config.Outlet) { cfg.Tracing = tracingTo(c, 1) },
	})
	for range 20 {
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		_ = nc.Close()
	}
	sys.stopInlet()
	if got := metric(t, sys.inlet.obs, "culvert_tracing_spans_total", "failed"); got != 20 {
		t.Errorf("%v spans have failed, want 20", got)
	}
	if got := len(sys.inletLog.lines(t, map[string]string{"level": "warn", "msg": "the collector does not take all spans, trying on", "endpoint": c.URL + "/v1/traces"})); got != 1 {
		t.Errorf("%d lines about the collector, want one", got)
	}
}

// TestTraceOfReplicas: those that do not take a stream are in its trace.
func TestTraceOfReplicas(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr, err := trace.New(trace.Config{Service: "test", Endpoint: c.URL + "/v1/traces", Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 3))
		synctest.Wait()
		f.set(func() {
			for n := range 3 {
				f.sessions[keyOf(numbered(n))].answer = func(context.Context) error { return &tunnel.RefusedError{Code: code.TargetRefused} }
			}
		})
		sp := tr.StartClient(time.Now(), "stream orders-db")
		if _, _, err := f.b.open(trace.With(t.Context(), sp), tunnel.Open{Service: "orders-db"}); err == nil {
			t.Error("a stream that all have refused")
		}
		sp.End("target_refused")
	})
	ended, end := context.WithCancel(t.Context())
	end()
	tr.Run(ended, ended)
	spans := c.Spans()
	if len(spans) != 1 {
		t.Fatalf("got %d spans, want 1", len(spans))
	}
	passed := map[any]bool{}
	for _, e := range spans[0].Events {
		if e.Name == trace.EventPassedOver && e.Attrs[trace.AttrCode] == "target_refused" {
			passed[e.Attrs[trace.AttrPeerInstance]] = true
		}
	}
	if len(passed) != 3 {
		t.Errorf("got events %+v, want one of each replica", spans[0].Events)
	}
}
