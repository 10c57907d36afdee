package trace

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
)

// A Context is what the other end of a stream has to know of a span, to make its own
// that one's children. The zero Context is none.
type Context struct {
	TraceID [16]byte
	SpanID  [8]byte
	Sampled bool // the span is recorded
}

// An Attr is a name and a value that a span or an event has. It is not changed.
type Attr = *common.KeyValue

// String returns an attribute whose value is text, of which 256 bytes are kept.
func String(name, value string) Attr {
	value = strings.ToValidUTF8(value[:min(len(value), maxText)], "\uFFFD") // or no message could have it
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// Int returns an attribute whose value is a number.
func Int(name string, value int64) Attr {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}}
}

// set puts a in the place of the attribute of the same name, or behind the others.
func set(attrs []Attr, a Attr) []Attr {
	for i := range attrs {
		if attrs[i].GetKey() == a.GetKey() {
			attrs[i] = a
			return attrs
		}
	}
	return append(attrs, a)
}

// A Span is about a connection, or a part of what is done for it. The nil Span is
// about nothing. Where a Span is not recorded its methods do nothing. They may be
// called concurrently, and do not block.
type Span struct {
	tracer  *Tracer
	context Context
	first   atomic.Bool // FirstByte was called

	mu     sync.Mutex
	record *otlp.Span // nil: it is not recorded, or has ended
}

// Recording reports whether the span is recorded.
func (s *Span) Recording() bool { return s != nil && s.context.Sampled }

// Context returns what the peer has to know. A span that is not recorded has one,
// too: it asks the peer not to record its part either.
func (s *Span) Context() Context {
	if s == nil {
		return Context{}
	}
	return s.context
}

// StartClient begins the span of a connection that this process has accepted, and a
// trace with it.
func (t *Tracer) StartClient(at time.Time, name string, attrs ...Attr) *Span {
	if t == nil {
		return nil
	}
	s := &Span{tracer: t}
	draw(s.context.TraceID[:])
	s.context.Sampled = t.sampler.begins(s.context.TraceID)
	return s.start(at, name, otlp.Span_SPAN_KIND_CLIENT, nil, attrs)
}

// StartServer begins the span of a stream that a peer has opened. parent is the
// peer's, as it claims; zero: it has none, and the trace begins here.
func (t *Tracer) StartServer(at time.Time, parent Context, name string, attrs ...Attr) *Span {
	if t == nil {
		return nil
	}
	s := &Span{tracer: t}
	if parent == (Context{}) {
		draw(s.context.TraceID[:])
		s.context.Sampled = t.sampler.begins(s.context.TraceID)
		return s.start(at, name, otlp.Span_SPAN_KIND_SERVER, nil, attrs)
	}
	s.context.TraceID, s.context.Sampled = parent.TraceID, t.sampler.follows(parent)
	if s.start(at, name, otlp.Span_SPAN_KIND_SERVER, parent.SpanID[:], attrs); s.record != nil {
		s.record.Flags |= uint32(otlp.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	return s
}

// start draws the span's id, and begins what is recorded.
func (s *Span) start(at time.Time, name string, kind otlp.Span_SpanKind, parent []byte, attrs []Attr) *Span {
	draw(s.context.SpanID[:])
	if !s.context.Sampled {
		return s
	}
	s.record = &otlp.Span{
		TraceId: s.context.TraceID[:], SpanId: s.context.SpanID[:], ParentSpanId: parent,
		Flags: sampledFlag | uint32(otlp.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
		Name:  name, Kind: kind, StartTimeUnixNano: nanos(at),
	}
	s.setLocked(attrs) // nobody else has it yet
	return s
}

// sampledFlag is the W3C trace-flag of what is recorded.
const sampledFlag = 1

func nanos(at time.Time) uint64 { return uint64(at.UnixNano()) }

// StartChild begins a span for a part of what s is about, a call to another program.
func (s *Span) StartChild(name string, attrs ...Attr) *Span {
	if !s.Recording() {
		return nil
	}
	c := &Span{tracer: s.tracer, context: s.context}
	return c.start(time.Now(), name, otlp.Span_SPAN_KIND_CLIENT, s.context.SpanID[:], attrs)
}

// Set gives the span attributes, in the place of those of the same names. Of more than
// 32 the first are kept.
func (s *Span) Set(attrs ...Attr) {
	if !s.Recording() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(attrs)
}

func (s *Span) setLocked(attrs []Attr) {
	if s.record == nil {
		return
	}
	for _, a := range attrs {
		before := s.record.Attributes
		if after := set(before, a); len(after) <= maxAttributes {
			s.record.Attributes = after
		} else {
			s.record.DroppedAttributesCount++
		}
	}
}

// Event notes that something has happened, now. Of more than 64 the last are kept.
func (s *Span) Event(name string, attrs ...Attr) {
	if !s.Recording() {
		return
	}
	e := &otlp.Span_Event{TimeUnixNano: nanos(time.Now()), Name: name, Attributes: attrs}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := s.record; {
	case r == nil:
	case len(r.Events) < maxEvents:
		r.Events = append(r.Events, e)
	default:
		copy(r.Events, r.Events[1:])
		r.Events[maxEvents-1] = e
		r.DroppedEventsCount++
	}
}

// FirstByte notes, once, that something has come from the service.
func (s *Span) FirstByte() {
	if s.Recording() && !s.first.Load() && s.first.CompareAndSwap(false, true) {
		s.Event(EventFirstByte)
	}
}

// End ends the span, once, and hands it over to be sent. failed is why it is an
// error's, one of a bounded set of words; "": it is none.
func (s *Span) End(failed string, attrs ...Attr) {
	if !s.Recording() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil {
		return
	}
	s.setLocked(attrs)
	if failed != "" {
		s.setLocked([]Attr{String("error.type", failed)})
		s.record.Status = &otlp.Status{Code: otlp.Status_STATUS_CODE_ERROR, Message: failed}
	}
	s.record.EndTimeUnixNano = max(nanos(time.Now()), s.record.StartTimeUnixNano) // by clocks that were put right, too
	s.tracer.queue.add(s.record)
	s.record = nil
}

// spanKey is the key of a context's span.
type spanKey struct{}

// With returns a context that has the span; ctx itself, where s is nil.
func With(ctx context.Context, s *Span) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(ctx, spanKey{}, s)
}

// From returns the span that ctx has, or nil.
func From(ctx context.Context) *Span {
	s, _ := ctx.Value(spanKey{}).(*Span)
	return s
}

// A Channel names a channel, on which several streams run.
type Channel [16]byte

func unwatched() {}

// Watch has what is told of a channel noted in the span, until stop is called.
func (t *Tracer) Watch(c Channel, s *Span) (stop func()) {
	if t == nil || !s.Recording() {
		return unwatched
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watched[c] == nil {
		t.watched[c] = map[*Span]struct{}{}
	}
	t.watched[c][s] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if delete(t.watched[c], s); len(t.watched[c]) == 0 {
			delete(t.watched, c)
		}
	}
}

// Tell notes an event in all spans that watch the channel.
func (t *Tracer) Tell(c Channel, event string, attrs ...Attr) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.watched[c] {
		s.Event(event, attrs...)
	}
}
