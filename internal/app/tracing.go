package app

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// openTracing makes what records the spans of streams, if the settings say where they
// go, and its metrics.
func (b *base) openTracing(c *config.Tracing, name string) error {
	if c.Endpoint == "" {
		return nil
	}
	cfg := trace.Config{
		Service: "culvert-" + b.log.Name(), Identifier: b.local.Identifier().String(), Instance: b.local.Instance().String(), Name: name,
		Endpoint: c.Endpoint, Headers: c.Headers, CAFile: c.CAFile, Sample: config.DefaultTracingSample, SpansPerSecond: c.SpansPerSecond,
		Flush: b.drainTimeout,
	}
	if c.Sample != nil {
		cfg.Sample = *c.Sample
	}
	told, endpoint := new(quiet), zap.String("endpoint", c.Endpoint)
	cfg.Failed = func(err error) {
		b.quietly(told, zapcore.WarnLevel, "the collector does not take all spans, trying on", err.Error(), endpoint, zap.Error(err))
	}
	cfg.Recovered = func(lost uint64) {
		b.quietly(told, zapcore.InfoLevel, "the collector takes spans again", "", endpoint, zap.Uint64("lost", lost))
	}
	t, err := trace.New(cfg)
	if err != nil {
		return b.common.Fault("tracing", err)
	}
	b.tracer = t
	for result, count := range map[string]func(trace.Stats) uint64{
		"exported": func(s trace.Stats) uint64 { return s.Exported },
		"failed":   func(s trace.Stats) uint64 { return s.Failed },
		"rejected": func(s trace.Stats) uint64 { return s.Rejected },
		"dropped":  func(s trace.Stats) uint64 { return s.Dropped },
		"limited":  func(s trace.Stats) uint64 { return s.Limited },
	} {
		b.obs.Registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "culvert_tracing_spans_total", ConstLabels: prometheus.Labels{"result": result},
			Help: "Spans, by what became of them: exported to the collector, failed to get there, rejected by it, dropped since too many waited, limited by spans_per_second.",
		}, func() float64 { return float64(count(t.Stats())) }))
	}
	return nil
}

// startSpan begins the span of a client's connection; nil where nothing is traced.
func (in *Inlet) startSpan(s *inletService, client string, began time.Time) *trace.Span {
	if in.tracer == nil {
		return nil
	}
	sp := in.tracer.StartClient(began, trace.SpanStream+" "+s.Service, trace.String(trace.AttrService, s.Service))
	if in.cfg.Tracing.ClientAddress && sp.Recording() {
		sp.Set(trace.String(trace.AttrClientAddress, client))
	}
	return sp
}

// traceContext returns what OPEN says of the span of ctx.
func traceContext(ctx context.Context) tunnel.TraceContext {
	c := trace.From(ctx).Context()
	if c == (trace.Context{}) {
		return tunnel.TraceContext{}
	}
	return tunnel.NewTraceContext(c.TraceID, c.SpanID, c.Sampled)
}

// spanOpened says which stream the span is about, and has it follow the paths of the
// stream's channel until stop is called.
func (in *Inlet) spanOpened(sp *trace.Span, st *tunnel.Stream, h *held) (stop func()) {
	ch := h.session.(*lasting).ch
	if sp.Recording() {
		sp.Set(streamAttrs(ch, st.ID(), h.link.routes.of(ch.State().Route).String())...)
	}
	return in.tracer.Watch(trace.Channel(ch.ID()), sp)
}

// streamAttrs are what a span says of a stream and its peer.
func streamAttrs(ch *channel.Channel, stream uint32, route string) []trace.Attr {
	p := ch.Peer()
	attrs := []trace.Attr{
		trace.String(trace.AttrPeer, p.Identifier.String()), trace.String(trace.AttrPeerInstance, p.Instance.String()),
		trace.String(trace.AttrChannel, ch.ID().String()), trace.Int(trace.AttrStream, int64(stream)),
	}
	if route != "" {
		attrs = append(attrs, trace.String(trace.AttrRoute, route))
	}
	return attrs
}

// endSpan ends a stream's span. What the log says beside the code can have addresses
// in it, of clients too, and stays there.
func endSpan(sp *trace.Span, e *streamEnd, toService, toClient int64) {
	if !sp.Recording() {
		return
	}
	failed := e.label
	switch e.label {
	case code.OK.String(), code.ClientReset.String(), code.Aborted.String(): // as a client may
		failed = ""
	}
	sp.End(failed, trace.String(trace.AttrCode, e.label), trace.Int(trace.AttrToService, toService), trace.Int(trace.AttrToClient, toClient))
}

// passedOver notes a replica that did not take the stream.
func passedOver(ctx context.Context, r *replica, err error) {
	if sp := trace.From(ctx); sp.Recording() {
		sp.Event(trace.EventPassedOver, trace.String(trace.AttrPeer, r.outlet.String()), trace.String(trace.AttrPeerInstance, r.instance.String()),
			trace.String(trace.AttrCode, known(tunnel.CodeOf(err))))
	}
}

// startSpan begins the span of a stream that a peer wants, as the peer's child where
// it names one, and has it follow the paths of the channel until the stream ends.
// Strangers, of whom there can be any number, get none.
func (p *served) startSpan() {
	out := p.out
	if out.tracer == nil || !out.channels.knows(p.req.Peer().Identifier) {
		return
	}
	var parent trace.Context
	if c := p.req.Trace; !c.IsZero() {
		parent = trace.Context{TraceID: c.TraceID(), SpanID: c.ParentID(), Sampled: c.Sampled()}
	}
	name := trace.SpanStream
	if p.service != nil { // else the peer could make any number of names
		name += " " + p.service.Name
	}
	ch := p.ch.session.ch
	p.span = out.tracer.StartServer(p.live.since, parent, name, trace.String(trace.AttrService, p.req.Service))
	if p.span.Recording() {
		p.span.Set(streamAttrs(ch, p.req.StreamID(), ch.State().Via)...)
		if out.cfg.Tracing.ClientAddress && p.req.ClientAddress != "" {
			p.span.Set(trace.String(trace.AttrClientAddress, p.req.ClientAddress))
		}
	}
	p.unwatch = out.tracer.Watch(trace.Channel(ch.ID()), p.span)
}

// endSpan ends the span that startSpan began.
func (p *served) endSpan(e *streamEnd) {
	if p.unwatch == nil {
		return
	}
	p.unwatch()
	endSpan(p.span, e, e.received, e.sent)
}

// startDial begins the span of the dial to the target.
func (p *served) startDial() *trace.Span {
	if !p.span.Recording() {
		return nil
	}
	p.span.Event(trace.EventDecided)
	dial := p.span.StartChild(trace.SpanDial+" "+p.service.Name, trace.String(trace.AttrService, p.service.Name))
	if t := p.service.Target; t.Path == "" {
		dial.Set(trace.String(trace.AttrServerAddress, t.Host), trace.Int(trace.AttrServerPort, int64(t.Port)))
	}
	return dial
}

// endDial ends the span of a dial.
func endDial(sp *trace.Span, err error) {
	if !sp.Recording() {
		return
	}
	c := dialCode(err)
	switch {
	case errors.Is(err, errGone):
		c = code.Aborted
	case errors.Is(err, errShutdown):
		c = code.Shutdown
	}
	failed := c.String()
	if c == code.OK || c == code.Aborted {
		failed = ""
	}
	sp.End(failed, trace.String(trace.AttrCode, c.String()))
}

// tellPathLost notes in the spans of a channel's streams that its path has ended.
func (b *base) tellPathLost(c *channel.Channel, err error) {
	if b.tracer != nil {
		b.tracer.Tell(trace.Channel(c.ID()), trace.EventPathLost, trace.String(trace.AttrCode, pathLabel(err)))
	}
}

// tellPathMoved notes in them that the channel has another one, by that route.
func (b *base) tellPathMoved(c *channel.Channel, m channel.Move, route string) {
	if b.tracer != nil {
		b.tracer.Tell(trace.Channel(c.ID()), trace.EventPathChanged,
			trace.String(trace.AttrCause, string(m.Cause)), trace.String(trace.AttrRoute, route), trace.Int(trace.AttrDown, m.Down.Milliseconds()))
	}
}

// A tracedSide is the stream's side of a copy that notes in a span when the first
// byte comes from the service. What follows goes the way that it goes without.
type tracedSide struct {
	*sided
	span *trace.Span
}

// traced returns s, or a side that notes the first byte where that is recorded.
func traced(s *sided, sp *trace.Span) pump.Conn {
	switch {
	case !sp.Recording():
		return s
	case s.socketReset == code.ClientReset:
		return &tracedStream{tracedSide{s, sp}}
	}
	return &tracedSocket{tracedSide{s, sp}}
}

// A tracedStream is an inlet's: the service is behind the stream.
type tracedStream struct{ tracedSide }

// Deliver is the stream's.
func (s *tracedStream) Deliver(w io.Writer, done func(n int64, err error)) {
	s.sided.Deliver(&firstByteWriter{w, s.span}, done)
}

// A firstByteWriter is a writer that notes the first byte.
type firstByteWriter struct {
	w    io.Writer
	span *trace.Span
}

// Write implements [io.Writer].
func (f *firstByteWriter) Write(b []byte) (int, error) {
	f.span.FirstByte()
	return f.w.Write(b)
}

// Pause waits as w does, before a buffer is taken.
func (f *firstByteWriter) Pause() (most int, err error) {
	if p, ok := f.w.(interface{ Pause() (int, error) }); ok {
		return p.Pause()
	}
	return math.MaxInt, nil
}

// Moved is w's.
func (f *firstByteWriter) Moved() uint64 {
	if m, ok := f.w.(interface{ Moved() uint64 }); ok {
		return m.Moved()
	}
	return 0
}

// A tracedSocket is an outlet's: the service is behind the socket.
type tracedSocket struct{ tracedSide }

// firstRead bounds what is read together with the first byte.
const firstRead = 4 << 10

// ReadFrom is the stream's, but for the first piece.
func (s *tracedSocket) ReadFrom(r io.Reader) (int64, error) {
	nc, ok := r.(net.Conn)
	if !ok {
		return s.sided.ReadFrom(r)
	}
	first, n, readErr := sock.NewReader(nc).ReadReady(func() []byte { return make([]byte, firstRead) }, func([]byte) {})
	var sent int
	if n > 0 {
		s.span.FirstByte()
		var err error
		if sent, err = s.Write(first[:n]); err != nil {
			return int64(sent), err
		}
	}
	switch {
	case readErr == io.EOF:
		return int64(sent), nil
	case readErr != nil:
		return int64(sent), readErr
	}
	more, err := s.sided.ReadFrom(r)
	return int64(sent) + more, err
}
