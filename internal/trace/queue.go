package trace

import (
	"context"
	"sync/atomic"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	// maxQueue is how many spans wait for the collector; more are dropped.
	maxQueue = 2048
	// maxBatch is how many of them go in one request.
	maxBatch = 512
	// batchTime is for how long a span waits for others to go with.
	batchTime = 2 * time.Second
)

// A queue holds the spans that have ended.
type queue struct {
	spans   chan *otlp.Span
	dropped atomic.Uint64
}

func newQueue() *queue { return &queue{spans: make(chan *otlp.Span, maxQueue)} }

// add takes a span, or drops it. It does not block.
func (q *queue) add(s *otlp.Span) {
	select {
	case q.spans <- s:
	default:
		q.dropped.Add(1)
	}
}

// take waits for spans and returns them: a full batch, those that have come since the
// first for batchTime, or those that there are when ctx has ended; nil when there are
// none then.
func (q *queue) take(ctx context.Context) (batch []*otlp.Span) {
	select {
	case s := <-q.spans:
		batch = append(batch, s)
	case <-ctx.Done():
		return q.rest(nil)
	}
	t := time.NewTimer(batchTime)
	defer t.Stop()
	for len(batch) < maxBatch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		case <-t.C:
			return batch
		case <-ctx.Done():
			return q.rest(batch)
		}
	}
	return batch
}

// rest adds to batch what is there already.
func (q *queue) rest(batch []*otlp.Span) []*otlp.Span {
	for len(batch) < maxBatch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// discard drops what nobody will take any more.
func (q *queue) discard() {
	for {
		select {
		case <-q.spans:
			q.dropped.Add(1)
		default:
			return
		}
	}
}
