// Package tracetest owns a collector for tests: it takes traces by OTLP over HTTP, as
// the protocol's own definitions read them, and says what has come. It is for tests
// only.
package tracetest

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// maxRequest bounds a request that is taken, in bytes without compression.
const maxRequest = 64 << 20

// A Span is one that has come, with what its resource says.
type Span struct {
	Name                     string
	TraceID, SpanID, Parent  string // hexadecimal; a root has no parent
	Kind                     string // CLIENT, SERVER or INTERNAL
	Start, End               time.Time
	Attrs, Resource          map[string]any
	Events                   []Event
	Error                    string // the status's message; "": it is none's
	RemoteParent, HasSampled bool   // as the flags say
}

// An Event is one of a span.
type Event struct {
	Name  string
	At    time.Time
	Attrs map[string]any
}

// Has returns when the first event of that name was, and whether there is one.
func (s *Span) Has(event string) (at time.Time, ok bool) {
	for _, e := range s.Events {
		if e.Name == event {
			return e.At, true
		}
	}
	return time.Time{}, false
}

// A Collector is one that listens at a loopback.
type Collector struct {
	URL string // for settings, without the path

	mu       sync.Mutex
	answer   http.HandlerFunc // nil: it takes what comes
	spans    []Span
	requests []http.Header
	faults   []error       // what was wrong with requests
	changed  chan struct{} // closed, and made anew, when something has come
}

// Start starts a collector that ends with the test, which fails if a request was none
// of OTLP. tls says whether it is at https.
func Start(t testing.TB, tls bool) (*Collector, *httptest.Server) {
	t.Helper()
	c := &Collector{changed: make(chan struct{})}
	srv := httptest.NewUnstartedServer(c)
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	c.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.faults) > 0 {
			t.Errorf("collector: %v", errors.Join(c.faults...))
		}
	})
	return c, srv
}

// Answer has every request answered by f, which takes nothing; nil: by the collector.
func (c *Collector) Answer(f http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

// ServeHTTP implements [http.Handler].
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	answer := c.answer
	c.requests = append(c.requests, r.Header.Clone())
	c.mu.Unlock()
	defer c.tell()
	if answer != nil {
		answer(w, r)
		return
	}
	spans, err := read(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.faults = append(c.faults, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.spans = append(c.spans, spans...)
	body, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

func (c *Collector) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Spans returns what has come so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Requests returns the headers of all requests so far.
func (c *Collector) Requests() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]http.Header(nil), c.requests...)
}

// Wait waits until ok says so of what has come, at most for that long, and returns it.
func (c *Collector) Wait(t testing.TB, most time.Duration, what string, ok func([]Span) bool) []Span {
	t.Helper()
	late := time.After(most)
	for {
		c.mu.Lock()
		spans, changed := append([]Span(nil), c.spans...), c.changed
		c.mu.Unlock()
		if ok(spans) {
			return spans
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("collector: not %s after %v, of %d requests it has: %s", what, most, len(c.Requests()), names(spans))
		}
	}
}

func names(spans []Span) (list string) {
	for i := range spans {
		s := &spans[i]
		list += fmt.Sprintf("\n  %s %q trace %s span %s parent %q %v", s.Kind, s.Name, s.TraceID, s.SpanID, s.Parent, s.Attrs)
	}
	return list
}

// read reads a request to its last byte, as OTLP has it.
func read(r *http.Request) ([]Span, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" {
		return nil, fmt.Errorf("%s %s, want POST /v1/traces", r.Method, r.URL.Path)
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-protobuf" {
		return nil, fmt.Errorf("content type %q", got)
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		body = z
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxRequest))
	if err != nil {
		return nil, err
	}
	var req collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &req); err != nil {
		return nil, err
	}
	if unknown := req.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		return nil, fmt.Errorf("the request has fields that OTLP does not know: %x", unknown)
	}
	var spans []Span
	for _, rs := range req.GetResourceSpans() {
		resource := attrs(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				spans = append(spans, span(s, resource))
			}
		}
	}
	return spans, nil
}

func span(s *otlp.Span, resource map[string]any) Span {
	got := Span{
		Name: s.GetName(), TraceID: hex.EncodeToString(s.GetTraceId()), SpanID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Kind:  s.GetKind().String()[len("SPAN_KIND_"):],
		Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
		Attrs: attrs(s.GetAttributes()), Resource: resource,
		HasSampled:   s.GetFlags()&uint32(otlp.SpanFlags_SPAN_FLAGS_TRACE_FLAGS_MASK)&1 != 0,
		RemoteParent: s.GetFlags()&uint32(otlp.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) != 0,
	}
	if s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR {
		got.Error = s.GetStatus().GetMessage()
	}
	for _, e := range s.GetEvents() {
		got.Events = append(got.Events, Event{e.GetName(), time.Unix(0, int64(e.GetTimeUnixNano())), attrs(e.GetAttributes())})
	}
	return got
}

// attrs returns attributes of which each is a text or a number.
func attrs(list []*common.KeyValue) map[string]any {
	m := map[string]any{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			m[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			m[kv.GetKey()] = v.IntValue
		default:
			m[kv.GetKey()] = fmt.Sprint(v)
		}
	}
	return m
}
