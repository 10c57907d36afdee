package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/audit"
	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// serveConn serves a conn on which an inlet is to open a channel, until the
// channel has ended, or to make another path for one, until that is in use. The
// handshake gives way to others that want its place among the outlet's, or in the part
// of them that it takes one of, if that is not nil. free is called when it is over.
func (out *Outlet) serveConn(ctx context.Context, nc net.Conn, via string, part *turns.Turns, free func()) {
	out.tune(nc)
	turn, done := out.turns.Begin(ctx)
	turn, left := part.Begin(turn)
	in, err := channel.Respond(turn, nc, out.local, channel.PurposeChannel, channel.Options{})
	left()
	done()
	free()
	if err != nil {
		out.handshakeFailed(nc.RemoteAddr(), via, err)
		return
	}
	peer := in.Peer()
	if in.Resumes() {
		if _, err := out.table.Resume(in, via); err != nil {
			c := label(err, code.Unreachable)
			out.refused(zapcore.InfoLevel, "path refused", peer.Identifier, via, c, err.Error())
			out.auditRefusal(audit.Resume, peer, via, c, err.Error())
		}
		return
	}
	place, r := out.channels.reserve(out.trust.judge(peer).Peer)
	if r != nil {
		out.refused(zapcore.WarnLevel, "channel refused", peer.Identifier, via, r.code.String(), r.logged())
		out.auditRefusal(audit.Channel, peer, via, r.code.String(), r.logged())
		_ = in.Refuse(r.code, r.reason) // the peer may have gone, which is no news
		return
	}
	var c *channel.Channel
	defer func() { out.channels.release(place, c) }()
	c, err = out.table.Open(in, via)
	if err != nil {
		c := label(err, code.Unreachable)
		out.refused(zapcore.WarnLevel, "channel refused", peer.Identifier, via, c, err.Error())
		out.auditRefusal(audit.Channel, peer, via, c, err.Error())
		return
	}
	ch := &openChannel{peer: peer, since: time.Now(), session: out.newSession(c, place), streams: map[*served]struct{}{}}
	out.channels.occupy(place, ch)
	out.serveChannel(ctx, ch, via)
}

// exceeds ends the session of a stranger that has sent more than it may.
func (out *Outlet) exceeds(s *lasting, p *reservation) {
	s.Close(code.Limit, fmt.Sprintf("%s is not known here, and has sent more than %d bytes, of which each stream counts as %d", p.peer, out.channels.bounds.bytes, streamCost))
}

// newSession returns the session of a channel whose place is p.
func (out *Outlet) newSession(c *channel.Channel, p *reservation) *lasting {
	cfg := out.tunnelConfig(&out.cfg.Channels)
	cfg.MaxStreams, cfg.Unanswered, cfg.Window = out.maxStreams, out.unanswered, out.window
	if most := out.channels.bounds.streams; most > 0 && !out.channels.isListed(p) {
		cfg.MaxStreams = most
	}
	if out.channels.bounds.bytes == 0 {
		return &lasting{Session: tunnel.NewServer(c, cfg), ch: c}
	}
	m := &meteredChannel{Channel: c, place: p}
	s := &lasting{Session: tunnel.NewServer(m, cfg), ch: c}
	m.exceed = func() { out.exceeds(s, p) }
	return s
}

// endStranger ends a stranger's channel. Such are ended as often as strangers come.
func (out *Outlet) endStranger(ch *openChannel, r *refusal) {
	const message = "channel of a stranger is ended"
	out.log.Log(out.loud(zapcore.InfoLevel, ch.peer.Identifier, message), message,
		zap.Stringer("peer", ch.peer.Identifier), zap.Stringer("channel", ch.session.ch.ID()), zap.String("code", r.code.String()), zap.String("reason", r.reason))
	ch.session.Close(r.code, r.reason)
	ch.session.endWithin(r.code, errors.New(r.reason))
}

func (out *Outlet) handshakeFailed(remote net.Addr, via string, err error) {
	out.handshakes.observe(err)
	out.auditHandshake(identity.Identifier{}, remote.String(), via, err)
	c := label(err, code.Unreachable)
	out.quietly(&out.toldHandshakes, zapcore.InfoLevel, "handshake failed", via+c+err.Error(),
		peerField(err), zap.Stringer("remote", remote), viaField(via), zap.String("code", c), zap.String("reason", err.Error()))
}

// refused logs what a peer did not get.
func (out *Outlet) refused(loud zapcore.Level, message string, peer identity.Identifier, via, code, reason string) {
	told := &out.toldPeers
	if !out.channels.knows(peer) {
		told = &out.toldStrangers
	}
	out.quietly(told, loud, message, peer.String()+via+code,
		zap.Stringer("peer", peer), viaField(via), zap.String("code", code), zap.String("reason", reason))
}

// loud returns at which level something is logged that a peer has caused. What
// a stranger does again and again is for those who look closely.
func (out *Outlet) loud(level zapcore.Level, peer identity.Identifier, what string) zapcore.Level {
	if out.channels.knows(peer) {
		return level
	}
	return out.toldStrangers.level(what+peer.String(), level)
}

func (out *Outlet) pathLost(c *channel.Channel, _ int, err error) {
	out.paths.lost(err)
	out.tellPathLost(c, err)
	id, instance := c.Remote()
	const message = "path lost, streams wait for another"
	out.log.Log(out.loud(out.pathLevel(), id, message), message,
		zap.Stringer("peer", id), zap.Stringer("instance", instance), zap.Stringer("channel", c.ID()), zap.String("code", pathLabel(err)), zap.String("reason", err.Error()))
}

func (out *Outlet) pathMoved(c *channel.Channel, m channel.Move) {
	out.paths.moved(m)
	out.tellPathMoved(c, m, m.Via)
	out.trust.shown(c)
	id, instance := c.Remote()
	const message = "path changed"
	out.log.Log(out.loud(out.pathLevel(), id, message), message,
		moveFields(m, zap.Stringer("peer", id), zap.Stringer("instance", instance), zap.Stringer("channel", c.ID()), viaField(m.Via))...)
}

// viaField is the log's field for the relay's route and address, if there is
// one.
func viaField(via string) zap.Field {
	if via == "" {
		return zap.Skip()
	}
	return zap.String("route", via)
}

// serveChannel runs a channel's session until it is over.
func (out *Outlet) serveChannel(ctx context.Context, ch *openChannel, via string) {
	out.channels.add(ch)
	defer out.channels.remove(ch)
	out.trust.shown(ch.session.ch) // since its handshake things may have changed
	log := out.log.With(zap.Stringer("peer", ch.peer.Identifier), zap.Stringer("instance", ch.peer.Instance), zap.Stringer("channel", ch.session.ch.ID()))
	loud := func(level zapcore.Level, message string, fields ...zap.Field) {
		log.Log(out.loud(level, ch.peer.Identifier, message), message, fields...)
	}
	loud(zapcore.InfoLevel, "channel opened", viaField(via))
	out.auditChannel(ch.session.ch.ID(), ch.peer, via)

	stop := context.AfterFunc(ctx, func() {
		// Without a path, the word is waited for only where streams want it.
		if _, _, down := ch.session.Path(); down != nil && ch.session.Streams() == 0 {
			ch.session.Fail(code.Shutdown, errShutdown)
			return
		}
		ch.session.Close(code.Shutdown, "the "+out.kind+" is stopping")
		ch.session.hurry()
	})
	defer stop()
	var streams sync.WaitGroup
	streams.Go(func() {
		for {
			req, err := ch.session.Accept(context.WithoutCancel(ctx))
			if err != nil {
				return // the session is over
			}
			streams.Go(func() {
				if p := out.serveStream(ctx, ch, req); p != nil {
					// The dial has made this goroutine's stack large for as long as
					// it lives: the stream gets another one.
					streams.Go(func() { p.carry(ctx) })
				}
			})
		}
	})
	err := ch.session.Run(context.WithoutCancel(ctx))
	streams.Wait()

	c, level, message := label(err, code.ChannelLost), zapcore.InfoLevel, "channel closed"
	out.auditChannelEnd(ch.session.ch.ID(), ch.peer, c, err, time.Since(ch.since))
	var lost *channel.LostError
	if errors.As(err, &lost) && lost.Code != code.Shutdown || c == code.ChannelLost.String() || c == code.Protocol.String() {
		level, message = zapcore.WarnLevel, "channel lost"
		out.paths.channelLost(c)
	}
	fields := []zap.Field{zap.String("code", c), zap.Duration("duration", time.Since(ch.since))}
	if err != nil {
		fields = append(fields, zap.String("reason", err.Error()))
	}
	loud(level, message, fields...)
}

// A served stream is one that a peer wants, or has got.
type served struct {
	out     *Outlet
	ch      *openChannel
	req     *tunnel.Request
	live    liveStream
	service *outletService // nil: there is none of that name
	metrics *serviceMetrics
	granted bool // the audit log has that the stream is allowed
	bounded bool // it has a place among the service's connections
	span    *trace.Span
	unwatch func() // ends what span follows; nil: nothing

	stream *tunnel.Stream
	target *pump.Limited
}

// serveStream answers one stream that a peer wants. It returns what is to be
// carried, or nil when the stream has ended already.
func (out *Outlet) serveStream(ctx context.Context, ch *openChannel, req *tunnel.Request) *served {
	p := &served{
		out: out, ch: ch, req: req, live: liveStream{service: req.Service, client: req.ClientAddress, since: time.Now()}, service: out.enter(req.Service), metrics: out.unknown,
	}
	if p.service != nil {
		p.metrics = p.service.metrics
		out.carried.Add(1)
	}
	p.live.on(ch.session.ch, req.StreamID(), req)
	out.streams.table.begin(&p.live, p.metrics.count)
	p.startSpan()
	if p.service != nil && p.service.handle != nil {
		p.ended(p.host(ctx))
		return nil
	}
	if p.service != nil && out.takes != nil {
		p.ended(out.takes(ctx, p))
		return nil
	}
	if e := p.answer(ctx); p.stream == nil {
		p.ended(e)
		return nil
	}
	return p
}

// carry copies between the stream and the target until both have ended.
func (p *served) carry(ctx context.Context) {
	p.ended(copyStream(ctx, p.target, p.stream, code.TargetReset, p.span))
	p.service.bounds.unbind(p.stream)
}

// ended counts and logs the stream's end.
func (p *served) ended(e streamEnd) {
	if p.bounded { // before it is counted as gone: who has seen that finds a place
		p.service.bounds.leave()
	}
	p.ch.forget(p)
	p.out.streams.table.end(&p.live)
	p.metrics.ended(e)
	p.audit(e)
	p.endSpan(&e)
	peer := p.req.Peer().Identifier
	e.hushed = !e.clean() && p.out.loud(zapcore.WarnLevel, peer, "stream "+e.label) == zapcore.DebugLevel
	p.out.logEnd(e, time.Since(p.live.since), &streamName{p.req.Service, peer, p.req.ClientAddress})
	if p.service != nil {
		p.out.carried.Add(-1)
		p.out.streams.release(p.service.metrics)
	}
}

// event returns what is recorded of the stream.
func (p *served) event() audit.Event {
	e := audit.Event{
		Action: audit.Open, ID: streamID(p.ch.session.ch.ID(), p.req.StreamID()), Peer: p.out.auditJudged(p.req.Peer()), Service: p.req.Service, Client: p.req.ClientAddress,
	}
	if p.service != nil {
		e.Target = p.service.address
	}
	return e
}

// grant records that the stream is allowed, or says why it must not be.
func (p *served) grant() error {
	if p.out.audit == nil {
		return nil
	}
	e := p.event()
	err := p.out.base.grant(&e)
	p.granted = err == nil
	return err
}

// audit records how the stream ended, or that it was denied.
func (p *served) audit(end streamEnd) {
	if p.out.audit == nil || end.label == code.AuditFailed.String() {
		return // which grant has recorded
	}
	e := p.event()
	if !p.granted {
		e.Code, e.Reason = end.label, end.reason
		p.out.deny(&e)
		return
	}
	e.ToService, e.ToClient = end.received, end.sent
	p.out.end(&e, end.label, end.reason, time.Since(p.live.since))
}

// refuse answers the stream with a refusal. detail is for the log alone.
func (p *served) refuse(c code.Code, reason, detail string) streamEnd {
	p.req.Refuse(c, reason)
	if detail != "" {
		reason += ": " + detail
	}
	return streamEnd{label: c.String(), reason: reason}
}

// admit decides whether the peer gets its stream, and has that recorded. If not, the
// stream is refused.
func (p *served) admit() (e streamEnd, ok bool) {
	out, req, s, peer := p.out, p.req, p.service, p.req.Peer().Identifier
	switch as := out.trust.judge(req.Peer()); {
	case s != nil:
		// The peer hears that it is denied, and what is wrong with its credential;
		// the log why.
		if d := out.denies(&as, s.Name); d != nil {
			if d.why != "" {
				d.why += ": if it is to be, let it in under allow: of that service in this outlet's settings"
			}
			return p.refuse(d.code, d.told, d.why), false
		}
	case out.policy.knows(as.Peer):
		return p.refuse(code.ServiceUnknown, fmt.Sprintf("this outlet has no service %q", req.Service), ""), false
	default:
		// One who may use nothing is not told what there is.
		return p.refuse(code.StreamDenied, fmt.Sprintf("%s is not allowed to use the service %q", peer, req.Service), "there is no such service"), false
	}
	if err := s.bounds.enter(); err != nil {
		return p.refuse(code.Limit, err.Error(), ""), false
	}
	p.bounded = true
	if err := p.grant(); err != nil {
		return p.refuse(code.AuditFailed, unrecorded, err.Error()), false
	}
	return streamEnd{}, true
}

// answer refuses the stream, or connects it to the service's target. What the
// peer is told about a target names the service, never the address behind it.
func (p *served) answer(ctx context.Context) streamEnd {
	req, s, refuse := p.req, p.service, p.refuse
	asked := p.out.trust.times.Load()
	if e, ok := p.admit(); !ok {
		return e
	}
	began, dial := time.Now(), p.startDial()
	nc, err := p.dialTarget(ctx)
	endDial(dial, err)
	switch c := dialCode(err); {
	case err == nil:
		p.metrics.waited(began)
	case errors.Is(err, errShutdown):
		return refuse(code.Shutdown, "the outlet is stopping", "")
	case errors.Is(err, errGone):
		req.Refuse(code.Aborted, "")
		return streamEnd{label: code.Aborted.String(), reason: err.Error()}
	case c == code.TargetRefused:
		return refuse(c, fmt.Sprintf("the target of %q refuses connections", s.Name), err.Error())
	case c == code.TargetTimeout:
		return refuse(c, fmt.Sprintf("the target of %q does not answer", s.Name), err.Error())
	case c == code.TargetTLS:
		return refuse(c, fmt.Sprintf("TLS with the target of %q fails", s.Name), err.Error())
	default:
		return refuse(c, fmt.Sprintf("the target of %q cannot be reached", s.Name), err.Error())
	}
	st, err := req.Accept()
	if err != nil {
		_ = nc.Close() // nothing was sent on it
		c, reason := streamCode(err, code.TargetReset)
		return streamEnd{label: known(c), reason: reason}
	}
	bound := s.bounds.bind(nc, st)
	if d := p.carries(st, bound, asked); d != nil {
		_ = st.Reset(d.code) // it is over either way
		_ = bound.Close()
		s.bounds.unbind(st)
		return streamEnd{label: d.code.String(), reason: d.logged()}
	}
	return streamEnd{}
}

// host lets this process serve the stream itself.
func (p *served) host(ctx context.Context) streamEnd {
	if p.ch.place.spend(streamCost) {
		p.out.exceeds(p.ch.session, p.ch.place)
		return streamEnd{label: code.Limit.String(), reason: "a stranger has opened too many streams"}
	}
	as := p.out.trust.judge(p.req.Peer())
	if d := p.out.denies(&as, p.service.Name); d != nil {
		p.req.Refuse(d.code, d.told)
		return streamEnd{label: d.code.String(), reason: d.logged()}
	}
	if err := p.grant(); err != nil {
		p.req.Refuse(code.AuditFailed, unrecorded)
		return streamEnd{label: code.AuditFailed.String(), reason: unrecorded + ": " + err.Error()}
	}
	st, err := p.req.Accept()
	if err != nil {
		c, reason := streamCode(err, code.Aborted)
		return streamEnd{label: known(c), reason: reason}
	}
	err = p.service.handle(ctx, st, p.req.Peer())
	if err == nil {
		_ = st.Close() // a clean end; the channel may have gone, which is no news
		return streamEnd{label: code.OK.String()}
	}
	c := hostCode(err)
	_ = st.Reset(c) // it is over either way
	return streamEnd{label: known(c), reason: err.Error()}
}

// errGone ends a dial for whose stream nobody waits any more.
var errGone = errors.New("the peer gave the stream up before the target answered")

// dialTarget connects to the target and does what comes before the client's bytes,
// within the time for dialling, unless the peer gives the stream up. What it returns is
// abortive.
func (p *served) dialTarget(ctx context.Context) (sock.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.req.OnCancel(func() { cancel(errGone) })
	defer p.req.OnCancel(nil)
	timed, stop := context.WithTimeout(ctx, time.Duration(p.out.dialTimeout.Load()))
	defer stop()
	nc, err := p.service.target.Dial(timed, p.out.dial, p.caller())
	if cause := context.Cause(ctx); cause != nil {
		if err == nil {
			_ = nc.Close() // nothing was sent on it
		}
		return nil, cause
	}
	return nc, err
}
