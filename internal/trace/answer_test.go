package trace

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/internal/trace/tracetest"
)

// TestRejected: the answers that the protocol's own definitions write are read.
func TestRejected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spans := rapid.Int64().Draw(t, "spans")
		message := rapid.StringN(0, 300, -1).Draw(t, "message")
		b, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: spans, ErrorMessage: message}})
		if err != nil {
			t.Skip("no UTF-8")
		}
		var e *RejectedError
		switch got := rejected(b); {
		case spans <= 0 && got != nil:
			t.Fatalf("got %v for %d spans, want nothing", got, spans)
		case spans > 0 && (!errors.As(got, &e) || e.Spans != uint64(spans) || len(e.Message) > 4*maxMessage):
			t.Fatalf("got %v for %d spans", got, spans)
		}
	})
	if err := rejected(nil); err != nil {
		t.Errorf("an empty answer: got %v", err)
	}
}

func FuzzRejected(f *testing.F) {
	for _, n := range []int64{0, 1, -1} {
		b, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: n, ErrorMessage: "no"}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := rejected(b)
		var want collector.ExportTraceServiceResponse
		if proto.Unmarshal(b, &want) != nil {
			return // it need not say anything of this one, and must not crash
		}
		n := want.GetPartialSuccess().GetRejectedSpans()
		var e *RejectedError
		// Of a message that is there twice, protobuf joins the two.
		if errors.As(got, &e) && n <= 0 && strings.Count(string(b), "\x0a") < 2 {
			t.Errorf("got %v of % x, want nothing", got, b)
		}
	})
}

// TestPartialSuccess: what the collector says that it has not taken is counted apart.
func TestPartialSuccess(t *testing.T) {
	c, _ := tracetest.Start(t, false)
	var w *told
	tr := newTracer(t, c, func(cfg *Config) { w = newTold(cfg) })
	c.Answer(func(rw http.ResponseWriter, _ *http.Request) {
		b, _ := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "too\nmany"}})
		_, _ = rw.Write(b)
	})
	for range 3 {
		tr.StartClient(time.Now(), "stream").End("")
	}
	start(t, tr)()
	wantStats(t, tr, Stats{Exported: 1, Rejected: 2})
	if len(w.failed) != 1 || !strings.Contains(w.failed[0].Error(), `rejected 2 spans: "too?many"`) {
		t.Errorf("told %v", w.failed)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "99999999999999999999": 0, "soon": 0,
		"Thu, 26 Nov 2026 12:00:05 GMT": 5 * time.Second, "Thu, 26 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
