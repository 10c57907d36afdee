package app

import (
	"context"
	"net"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// An inletClient is one local connection, from when it was accepted until it has ended.
// [Inlet.enter] makes it.
type inletClient struct {
	in      *Inlet
	service *inletService
	full    error // why it has no place among the service's connections; nil: it has one
	conn    sock.Conn
	free    func() // gives back its place among the inlet's
	live    liveStream
	span    *trace.Span

	// What there is once it has a stream.
	outlet  identity.Identifier
	held    *held
	stream  *tunnel.Stream
	socket  *pump.Limited // conn, as it is kept to the limits
	audited *auditedStream
	unwatch func() // ends what span follows
}

// serve opens a stream for the connection that was accepted, which has to be there before
// opening ends. It reports whether there is something to be carried; else the connection
// has ended already. Whatever goes wrong, the client sees a reset, never a clean end. At
// the end it leaves.
func (c *inletClient) serve(opening context.Context, accepted net.Conn) bool {
	in, s := c.in, c.service
	c.live, c.outlet = liveStream{service: s.Service, since: time.Now(), peer: s.Outlet}, s.Outlet
	var err error
	if c.conn, err = sock.Of(accepted); err != nil {
		_ = accepted.Close() // the listener is neither TCP's nor a unix socket's
		in.log.Error("client cannot be served", zap.String("service", s.Service), zap.Error(err))
		c.vacate()
		c.leave()
		return false
	}
	abortive(c.conn)
	in.carried.Add(1)
	c.live.client = clientOf(c.conn)
	in.streams.table.begin(&c.live, s.metrics.count)
	if ce := in.log.Check(zapcore.DebugLevel, "client connected"); ce != nil {
		ce.Write(zap.String("service", s.Service), zap.String("client", c.live.client))
	}
	c.span = in.startSpan(s, c.live.client, c.live.since)
	if e, ok := c.open(trace.With(opening, c.span)); !ok {
		c.ended(e)
		return false
	}
	return true
}

// open opens the stream. Where it does not, the client is reset, and the end returned.
func (c *inletClient) open(opening context.Context) (e streamEnd, ok bool) {
	in, s := c.in, c.service
	if e, ok := c.admit(); !ok {
		return e, false
	}
	if err := in.audit.Ready(); err != nil { // before the outlet hears of it
		_ = sock.ResetClose(c.conn)
		e := streamEnd{label: code.AuditFailed.String(), reason: err.Error()}
		in.auditUnopened(s, s.Outlet, c.live.client, e)
		return e, false
	}
	st, h, err := in.open(opening, s, tunnel.Open{Service: s.Service, ClientAddress: c.live.client, Trace: traceContext(opening)})
	if err != nil {
		_ = sock.ResetClose(c.conn) // the client is given up either way
		c.outlet = outletOf(err, s.Outlet)
		e := openEnd(opening, err)
		in.auditUnopened(s, c.outlet, c.live.client, e)
		return e, false
	}
	c.held, c.outlet = h, h.link.outlet
	s.metrics.waited(c.live.since)
	in.streams.table.carries(&c.live, h.session.(*lasting).ch, st.ID(), st)
	if c.audited, err = in.auditOpened(s, c.live.client, st, h); err != nil {
		_ = st.Reset(code.AuditFailed)
		_ = sock.ResetClose(c.conn)
		return streamEnd{label: code.AuditFailed.String(), reason: err.Error()}, false
	}
	c.unwatch = in.spanOpened(c.span, st, h)
	c.stream, c.socket = st, s.bounds.bind(c.conn, st)
	return streamEnd{}, true
}

// carry copies between the client and the stream until both have ended, or ctx ends.
func (c *inletClient) carry(ctx context.Context) {
	c.ended(copyStream(ctx, c.socket, c.stream, code.ClientReset, c.span))
}

// ended counts and logs the connection's end, and gives back what it had.
func (c *inletClient) ended(e streamEnd) {
	in, s := c.in, c.service
	if c.socket != nil {
		e.atInlet = true
		s.bounds.unbind(c.stream)
		in.auditClosed(c.audited, e)
		c.unwatch()
	}
	if c.held != nil {
		c.held.release()
	}
	c.vacate() // before it is counted as gone: who has seen that finds a place
	endSpan(c.span, &e, e.sent, e.received)
	in.streams.table.end(&c.live)
	in.carried.Add(-1)
	s.metrics.ended(e)
	in.logEnd(e, time.Since(c.live.since), &streamName{s.Service, c.outlet, c.live.client})
	c.leave()
}

// vacate gives back its place among the service's connections.
func (c *inletClient) vacate() {
	if c.full == nil {
		c.service.bounds.leave()
	}
}

// leave gives back what else the connection was accepted with.
func (c *inletClient) leave() {
	c.in.streams.release(c.service.metrics)
	c.free()
}
