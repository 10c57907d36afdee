package trace

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/trace/tracetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is to happen.
const patience = time.Minute

// newTracer returns a tracer to the collector that records all that begins here.
func newTracer(t *testing.T, c *tracetest.Collector, change func(*Config)) *Tracer {
	t.Helper()
	cfg := Config{Service: "culvert-test", Identifier: "me", Instance: "0102", Name: "blue", Endpoint: c.URL + "/v1/traces", Sample: 1, Flush: func() time.Duration { return patience }}
	if change != nil {
		change(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// start runs the tracer until stop is called, or the test ends.
func start(t *testing.T, tr *Tracer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { tr.Run(ctx, ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func wantStats(t *testing.T, tr *Tracer, want Stats) {
	t.Helper()
	if got := tr.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSpansArrive: everything that a span was told is at the collector when Run has
// returned.
func TestSpansArrive(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, nil)
	stop := start(t, tr)
	began := time.Now().Add(-time.Second)
	s := tr.StartClient(began, "stream orders-db", String(AttrService, "orders-db"))
	s.Set(String(AttrPeer, "you"), Int(AttrStream, 5))
	s.Event(EventChannel, String(AttrCode, "ok"))
	s.FirstByte()
	s.FirstByte()
	child := s.StartChild("dial orders-db")
	child.End("target_refused")
	child.End("again")
	s.End("", String(AttrCode, "ok"))
	s.Event("too late")
	stop()
	spans := c.Spans()
	if len(spans) != 2 {
		t.Fatalf("got %d spans, want 2", len(spans))
	}
	dial, stream := spans[0], spans[1]
	ctx := s.Context()
	if stream.TraceID != hex.EncodeToString(ctx.TraceID[:]) || stream.SpanID != hex.EncodeToString(ctx.SpanID[:]) || stream.Parent != "" || !ctx.Sampled {
		t.Errorf("got %+v, want the ids of %+v", stream, ctx)
	}
	if dial.TraceID != stream.TraceID || dial.Parent != stream.SpanID || dial.RemoteParent || dial.Kind != "CLIENT" || dial.Error != "target_refused" || dial.Attrs["error.type"] != "target_refused" {
		t.Errorf("got %+v, want a part of %s that has failed", dial, stream.SpanID)
	}
	if stream.Kind != "CLIENT" || stream.Error != "" || !stream.HasSampled || !stream.Start.Equal(time.Unix(0, began.UnixNano())) || stream.End.Before(dial.End) {
		t.Errorf("got %+v", stream)
	}
	for name, want := range map[string]any{AttrService: "orders-db", AttrPeer: "you", AttrStream: int64(5), AttrCode: "ok"} {
		if stream.Attrs[name] != want {
			t.Errorf("%s is %v, want %v", name, stream.Attrs[name], want)
		}
	}
	if len(stream.Events) != 2 || stream.Events[0].Name != EventChannel || stream.Events[1].Name != EventFirstByte {
		t.Errorf("got events %+v, want the channel and one first byte", stream.Events)
	}
	for name, want := range map[string]any{"service.name": "culvert-test", "service.instance.id": "0102", "culvert.identifier": "me", "culvert.name": "blue"} {
		if stream.Resource[name] != want {
			t.Errorf("resource: %s is %v, want %v", name, stream.Resource[name], want)
		}
	}
	wantStats(t, tr, Stats{Exported: 2})
}

// TestNothing: without a tracer nothing is recorded, and nothing breaks.
func TestNothing(t *testing.T) {
	var tr *Tracer
	s := tr.StartClient(time.Now(), "stream")
	for _, s := range []*Span{s, tr.StartServer(time.Now(), Context{}, "stream"), s.StartChild("dial"), From(With(t.Context(), s))} {
		if s.Recording() || s.Context() != (Context{}) {
			t.Errorf("got %+v, want nothing", s)
		}
		s.Set(String("a", "b"))
		s.Event("event")
		s.FirstByte()
		tr.Watch(Channel{}, s)()
		s.End("failed")
	}
	tr.Tell(Channel{}, "event")
	tr.Run(t.Context(), t.Context())
}

// TestAllocNothing: what is not traced costs no allocation.
func TestAllocNothing(t *testing.T) {
	var tr *Tracer
	ctx, began := t.Context(), time.Now()
	if got := testing.AllocsPerRun(100, func() {
		s := tr.StartClient(began, SpanStream)
		c := With(ctx, s)
		From(c).Event(EventChannel)
		_ = From(c).Context()
		defer tr.Watch(Channel{1}, s)()
		s.FirstByte()
		s.End("")
	}); got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

// TestSampleNone: with a share of 0 nothing is exported; the peer hears that it is not
// to record its part, by an id of its own for each.
func TestSampleNone(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, func(cfg *Config) { cfg.Sample = 0 })
	stop := start(t, tr)
	seen := map[Context]bool{}
	for range 100 {
		s := tr.StartClient(time.Now(), "stream")
		ctx := s.Context()
		if s.Recording() || ctx.Sampled || ctx.TraceID == [16]byte{} || ctx.SpanID == [8]byte{} || seen[ctx] {
			t.Fatalf("got %+v, recording %v", ctx, s.Recording())
		}
		seen[ctx] = true
		s.StartChild("dial").End("")
		s.End("")
	}
	stop()
	if n := len(c.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
	wantStats(t, tr, Stats{})
}

// TestSampleSome: the share is about what was asked for.
func TestSampleSome(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, func(cfg *Config) { cfg.Sample, cfg.SpansPerSecond = 0.25, 100_000 })
	const n = 20_000
	sampled := 0
	for range n {
		if tr.StartClient(time.Now(), "stream").Recording() {
			sampled++
		}
	}
	if sampled < n/5 || sampled > n*3/10 { // 16 standard deviations
		t.Errorf("%d of %d are recorded, want a quarter", sampled, n)
	}
}

func remote(sampled bool) Context {
	return Context{TraceID: [16]byte{1, 2, 3}, SpanID: [8]byte{4, 5, 6}, Sampled: sampled}
}

// TestParent: a peer's span is the parent of those here, whatever the share of those
// that begin here; one that is not recorded has no children.
func TestParent(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	for _, share := range []float64{0, 1} {
		tr := newTracer(t, c, func(cfg *Config) { cfg.Sample = share })
		stop := start(t, tr)
		if s := tr.StartServer(time.Now(), remote(false), "stream"); s.Recording() {
			t.Errorf("share %v: what the peer does not record is recorded", share)
		}
		s := tr.StartServer(time.Now(), remote(true), fmt.Sprint("share ", share))
		s.End("")
		if root := tr.StartServer(time.Now(), Context{}, "root"); root.Recording() != (share == 1) {
			t.Errorf("share %v: recording %v", share, root.Recording())
		}
		stop()
	}
	spans := c.Spans()
	if len(spans) != 2 {
		t.Fatalf("got %d spans, want 2", len(spans))
	}
	for _, s := range spans {
		if !strings.HasPrefix(s.TraceID, "010203") || !strings.HasPrefix(s.Parent, "040506") || s.Kind != "SERVER" || !s.RemoteParent {
			t.Errorf("got %+v, want a child of the peer's", s)
		}
	}
}

// TestLimit: a peer that asks for all it can gets a second's worth, and takes nothing
// from what begins here; nor the other way round.
func TestLimit(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, func(cfg *Config) { cfg.SpansPerSecond = 10 })
	began := time.Now()
	asked, own := 0, 0
	for range 1000 {
		if tr.StartServer(time.Now(), remote(true), "stream").Recording() {
			asked++
		}
	}
	for range 1000 {
		s := tr.StartClient(time.Now(), "stream")
		if s.Recording() != s.Context().Sampled {
			t.Fatal("the peer hears other than is so")
		}
		if s.Recording() {
			own++
			if !s.StartChild("dial").Recording() {
				t.Error("a part of what is recorded is not")
			}
		}
	}
	most := 10 + int(10*time.Since(began).Seconds()) + 1
	if asked < 10 || asked > most || own < 10 || own > most {
		t.Errorf("%d that a peer has asked for and %d that begin here, want 10 to %d each", asked, own, most)
	}
	if got := tr.Stats().Limited; got != uint64(2000-asked-own) {
		t.Errorf("%d were limited, want %d", got, 2000-asked-own)
	}
}

// TestWatch: what is told of a channel is in the spans of its streams, while they last,
// and in no others.
func TestWatch(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, nil)
	stop := start(t, tr)
	a, b, other := tr.StartClient(time.Now(), "a"), tr.StartClient(time.Now(), "b"), tr.StartClient(time.Now(), "other")
	stopA, stopB := tr.Watch(Channel{1}, a), tr.Watch(Channel{1}, b)
	defer tr.Watch(Channel{2}, other)()
	tr.Tell(Channel{1}, EventPathLost, String(AttrCode, "dead"))
	stopA()
	tr.Tell(Channel{1}, EventPathChanged)
	stopB()
	tr.Tell(Channel{1}, EventPathLost)
	if n := len(tr.watched); n != 1 {
		t.Errorf("%d channels are watched, want the other one's", n)
	}
	for _, s := range []*Span{a, b, other} {
		s.End("")
	}
	stop()
	want := map[string]int{"a": 1, "b": 2, "other": 0}
	for _, s := range c.Spans() {
		if len(s.Events) != want[s.Name] {
			t.Errorf("%s has events %+v, want %d", s.Name, s.Events, want[s.Name])
		}
	}
}

// TestBounds: a span holds the last of many events, and the beginning of a long text.
func TestBounds(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, nil)
	stop := start(t, tr)
	s := tr.StartClient(time.Now(), "stream", String(AttrService, strings.Repeat("s", 10_000)))
	for i := range 10_000 {
		s.Event(fmt.Sprint("event ", i))
		s.Set(Int(fmt.Sprint("attribute ", i), 1))
	}
	s.End("")
	stop()
	got := c.Spans()[0]
	if len(got.Events) != maxEvents || got.Events[maxEvents-1].Name != "event 9999" || len(got.Attrs) != maxAttributes || len(got.Attrs[AttrService].(string)) != maxText {
		t.Errorf("got %d events, the last %+v, %d attributes", len(got.Events), got.Events[len(got.Events)-1], len(got.Attrs))
	}
}

// TestQueueIsFull: what a collector does not take in time is dropped and counted, and
// nobody who records waits for it.
func TestQueueIsFull(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, func(cfg *Config) { cfg.SpansPerSecond = 100_000 })
	const more = 1000
	for range maxQueue + more { // nobody runs the tracer: a collector that answers never
		tr.StartClient(time.Now(), "stream").End("")
	}
	wantStats(t, tr, Stats{Dropped: more})
	start(t, tr)()
	wantStats(t, tr, Stats{Dropped: more, Exported: maxQueue})
	if n := len(c.Requests()); n != maxQueue/maxBatch {
		t.Errorf("%d requests, want %d", n, maxQueue/maxBatch)
	}
}

// told keeps what a tracer tells of its collector.
type told struct {
	mu        sync.Mutex
	failed    []error
	recovered []uint64
	changed   chan struct{}
}

func newTold(cfg *Config) *told {
	w := &told{changed: make(chan struct{}, 100)}
	cfg.Failed = func(err error) {
		w.mu.Lock()
		w.failed = append(w.failed, err)
		w.mu.Unlock()
		w.changed <- struct{}{}
	}
	cfg.Recovered = func(lost uint64) {
		w.mu.Lock()
		w.recovered = append(w.recovered, lost)
		w.mu.Unlock()
		w.changed <- struct{}{}
	}
	return w
}

func (w *told) await(t *testing.T, what string) {
	t.Helper()
	select {
	case <-w.changed:
	case <-time.After(patience):
		t.Fatalf("not told: %s", what)
	}
}

// TestCollectorComesBack: one that is busy is asked again, and gets all; what went
// wrong is told once.
func TestCollectorComesBack(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	var w *told
	tr := newTracer(t, c, func(cfg *Config) { w = newTold(cfg) })
	busy := 2
	c.Answer(func(rw http.ResponseWriter, _ *http.Request) {
		if busy--; busy == 0 {
			c.Answer(nil)
		}
		http.Error(rw, "busy", http.StatusServiceUnavailable)
	})
	stop := start(t, tr)
	tr.StartClient(time.Now(), "stream").End("")
	w.await(t, "that it fails")
	w.await(t, "that it works again")
	stop()
	wantStats(t, tr, Stats{Exported: 1})
	if len(w.failed) != 1 || !strings.Contains(w.failed[0].Error(), "503") || len(w.recovered) != 1 || w.recovered[0] != 0 {
		t.Errorf("told %v, then lost %v", w.failed, w.recovered)
	}
}

// TestCollectorRefuses: what is no matter of time is not tried again.
func TestCollectorRefuses(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	var w *told
	tr := newTracer(t, c, func(cfg *Config) { w = newTold(cfg) })
	c.Answer(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "who are you", http.StatusUnauthorized) })
	stop := start(t, tr)
	tr.StartClient(time.Now(), "stream").End("")
	w.await(t, "that it fails")
	c.Answer(nil)
	tr.StartClient(time.Now(), "stream").End("")
	w.await(t, "that it works again")
	stop()
	wantStats(t, tr, Stats{Failed: 1, Exported: 1})
	if w.recovered[0] != 1 || !strings.Contains(w.failed[0].Error(), "401") || !strings.Contains(w.failed[0].Error(), "token") {
		t.Errorf("told %v, then lost %v", w.failed, w.recovered)
	}
}

// TestCollectorHangs: a collector that takes a connection and never answers holds up
// the end for a moment, and nobody before.
func TestCollectorHangs(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, func(cfg *Config) { cfg.Flush = nil })
	asked, release := make(chan struct{}, 10), make(chan struct{})
	c.Answer(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	})
	defer close(release)
	stop := start(t, tr)
	tr.StartClient(time.Now(), "stream").End("")
	select {
	case <-asked:
	case <-time.After(patience):
		t.Fatal("no request")
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took < leastFlush {
		t.Errorf("gave up after %v, want %v", took, leastFlush)
	}
	wantStats(t, tr, Stats{Failed: 1})
}

// TestCollectorIsAway: nobody listens there.
func TestCollectorIsAway(t *testing.T) {
	c, srv := tracetest.Start(t, false)
	var w *told
	tr := newTracer(t, c, func(cfg *Config) {
		w = newTold(cfg)
		cfg.Headers = map[string]string{"Authorization": "Bearer very-secret"}
	})
	srv.Close()
	stop := start(t, tr)
	tr.StartClient(time.Now(), "stream").End("")
	w.await(t, "that it fails")
	stop()
	wantStats(t, tr, Stats{Failed: 1})
	if err := w.failed[0]; !strings.Contains(err.Error(), c.URL) || strings.Contains(err.Error(), "very-secret") {
		t.Errorf("told %v, want the address and no secret", err)
	}
}

// TestHeadersAndAuthorities: the headers of the settings are sent, to a collector that
// the file of authorities vouches for, and to no other.
func TestHeadersAndAuthorities(t *testing.T) {
	c, srv := tracetest.Start(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var w *told
	for _, trusted := range []bool{false, true} {
		tr := newTracer(t, c, func(cfg *Config) {
			w = newTold(cfg)
			cfg.Headers = map[string]string{"Authorization": "Bearer very-secret", "X-Scope-OrgID": "me"}
			if trusted {
				cfg.CAFile = ca
			}
		})
		stop := start(t, tr)
		tr.StartClient(time.Now(), "stream").End("")
		if !trusted {
			w.await(t, "that it fails")
		}
		stop()
	}
	requests := c.Requests()
	if len(requests) != 1 || len(c.Spans()) != 1 {
		t.Fatalf("%d requests and %d spans, want one of each", len(requests), len(c.Spans()))
	}
	if h := requests[0]; h.Get("Authorization") != "Bearer very-secret" || h.Get("X-Scope-OrgID") != "me" {
		t.Errorf("got headers %v", h)
	}
}

// TestNoRedirect: headers, which may hold a token, go nowhere but where they are meant
// to go.
func TestNoRedirect(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	other, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, nil)
	c.Answer(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, other.URL+"/v1/traces", http.StatusTemporaryRedirect)
	})
	stop := start(t, tr)
	tr.StartClient(time.Now(), "stream").End("")
	stop()
	if n := len(other.Requests()); n != 0 {
		t.Errorf("%d requests went where nobody has said, want none", n)
	}
	wantStats(t, tr, Stats{Failed: 1})
}

// TestEnvironment: of the standard variables those count that say what the process is,
// and they cannot say that it is another.
func TestEnvironment(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "orders")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=orders-0,service.instance.id=forged,culvert.identifier=forged")
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_TRACES_SAMPLER": "always_off",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_SPAN_EVENT_COUNT_LIMIT": "0",
	} {
		t.Setenv(name, value)
	}
	c, _ := tracetest.Start(t, false)
	tr := newTracer(t, c, nil)
	stop := start(t, tr)
	s := tr.StartClient(time.Now(), "stream", String(AttrService, "db"))
	s.FirstByte()
	s.End("")
	stop()
	spans := c.Spans()
	if len(spans) != 1 || spans[0].Attrs[AttrService] != "db" || len(spans[0].Events) != 1 || c.Requests()[0].Get("a") != "" {
		t.Fatalf("got %+v", spans)
	}
	for name, want := range map[string]any{"service.name": "orders", "k8s.pod.name": "orders-0", "service.instance.id": "0102", "culvert.identifier": "me"} {
		if got := spans[0].Resource[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	junk, large := filepath.Join(dir, "junk"), filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(junk, []byte("hello"), 0o600), os.WriteFile(large, bytes.Repeat([]byte("x"), maxCAFile+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{filepath.Join(dir, "missing"): "no such file", junk: "no certificate", large: "more than"} {
		if _, err := New(Config{Endpoint: "https://127.0.0.1:1/v1/traces", CAFile: file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "garbage")
	if _, err := New(Config{Endpoint: "https://127.0.0.1:1/v1/traces"}); err == nil || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") {
		t.Errorf("got %v, want what is wrong with the variable", err)
	}
}
