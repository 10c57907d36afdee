package trace

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/trace/tracetest"
)

// BenchmarkStream is what an inlet does for one stream: without a tracer, and with one
// that records nothing, or everything. Nobody sends the spans.
func BenchmarkStream(b *testing.B) {
	c, _ := tracetest.Start(b, false)
	for _, share := range []float64{-1, 0, 1} {
		b.Run(fmt.Sprint("share=", share), func(b *testing.B) {
			var tr *Tracer
			if share >= 0 {
				var err error
				if tr, err = New(Config{Endpoint: c.URL, Sample: share, SpansPerSecond: 1e9}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				stream(b.Context(), tr)
			}
		})
	}
}

func stream(ctx context.Context, tr *Tracer) {
	s := tr.StartClient(time.Time{}, "stream orders-db")
	ctx = With(ctx, s)
	From(ctx).Event(EventChannel)
	_ = From(ctx).Context()
	From(ctx).Event(EventOpenSent)
	defer tr.Watch(Channel{1}, s)()
	if s.Recording() {
		s.Set(String(AttrPeer, "you"), String(AttrRoute, "tcp://relay-a:4000/you"), String(AttrChannel, "0102"), Int(AttrStream, 5))
	}
	s.FirstByte()
	if s.Recording() {
		s.End("", String(AttrCode, "ok"), Int(AttrToService, 1), Int(AttrToClient, 2))
	}
}
