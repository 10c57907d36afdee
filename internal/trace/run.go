package trace

import (
	"context"
	"errors"
	"sync"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/culvert-net/culvert/internal/wait"
)

const (
	// leastFlush is for how long what is left is tried to be sent in any case, and
	// mostFlush for how long at most.
	leastFlush = time.Second
	mostFlush  = 5 * time.Second
)

// Run sends spans until ended ends, and then what is left, as long as [Config].Flush
// says from the end of stopping on: at least for a second, for no more than five, and
// for one second only where the collector takes nothing. It is called once.
func (t *Tracer) Run(stopping, ended context.Context) {
	if t == nil {
		return
	}
	defer t.client.http.CloseIdleConnections()
	defer t.queue.discard()
	sending, cancel := context.WithCancel(context.WithoutCancel(ended))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	waiting.Go(func() {
		defer cancel()
		t.awaitEnd(sending, stopping, ended)
	})
	for {
		batch := t.queue.take(ended)
		if batch == nil {
			return
		}
		t.export(sending, batch)
	}
}

// awaitEnd returns when it is time to give up what is left, or ctx ends.
func (t *Tracer) awaitEnd(ctx, stopping, ended context.Context) {
	select {
	case <-stopping.Done():
	case <-ended.Done():
	case <-ctx.Done():
		return
	}
	until := time.Now()
	if t.cfg.Flush != nil {
		until = until.Add(t.cfg.Flush())
	}
	select {
	case <-ended.Done():
	case <-ctx.Done():
		return
	}
	if !wait.Sleep(ctx, leastFlush) || t.failing.Load() {
		return
	}
	wait.Sleep(ctx, min(time.Until(until), mostFlush-leastFlush))
}

// export sends a batch, or gives it up.
func (t *Tracer) export(ctx context.Context, batch []*otlp.Span) {
	n := uint64(len(batch))
	err := t.client.send(ctx, &otlp.TracesData{ResourceSpans: []*otlp.ResourceSpans{{
		Resource: t.resource, ScopeSpans: []*otlp.ScopeSpans{{Scope: &common.InstrumentationScope{Name: scope}, Spans: batch}},
	}}})
	var partly *RejectedError
	switch {
	case err == nil:
		t.exported.Add(n)
		t.works()
	case errors.As(err, &partly):
		lost := min(partly.Spans, n)
		t.rejected.Add(lost)
		t.exported.Add(n - lost)
		t.fails(err, lost)
	default:
		t.failed.Add(n)
		t.fails(err, n)
	}
}

// fails notes that the collector took nothing, or less than it was sent.
func (t *Tracer) fails(err error, lost uint64) {
	t.lost += lost
	if t.failing.Swap(true) {
		return
	}
	if t.cfg.Failed != nil {
		t.cfg.Failed(err)
	}
}

func (t *Tracer) works() {
	if !t.failing.Swap(false) {
		return
	}
	lost := t.lost
	t.lost = 0
	if t.cfg.Recovered != nil {
		t.cfg.Recovered(lost)
	}
}
