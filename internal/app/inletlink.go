package app

import (
	"context"
	"net"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// An inletLink is a link over resumable channels, whose ups and downs are
// logged.
type inletLink struct {
	*link
	in     *Inlet
	caller *channel.Caller
	told   *quiet
}

func (in *Inlet) newLink(outlet identity.Identifier, routes []route.Route) *inletLink {
	l := &inletLink{link: newLink(outlet, routes), in: in, told: new(quiet)}
	l.link.connect = l.connect
	l.link.trace = linkTrace{failed: l.failed, opened: l.opened, replaced: l.replaced, draining: l.draining, ended: l.ended}
	l.caller = &channel.Caller{
		Local: in.local, Peer: outlet, Listed: l.routes.numbers,
		Path: func(ctx context.Context, i int, instance *channel.Instance, address int) (net.Conn, error) {
			nc, err := in.path(ctx, l.routes.of(i), outlet, instance, address)
			if err == nil {
				in.tune(nc)
			}
			return nc, err
		},
		Direct:   func(i int) bool { return isDirect(l.routes.of(i), outlet) },
		Timing:   channel.Timing{Renew: in.cfg.Rekey},
		Settings: in.channelSettings(&in.cfg.Channels, &channel.Trace{Lost: l.pathLost, Moved: l.pathMoved}),
		Failed:   l.attemptFailed,
	}
	return l
}

// isDirect reports whether a route leads to the outlet in one connection.
func isDirect(r route.Route, outlet identity.Identifier) bool {
	return len(r) == 1 && r[0].Identifier == outlet
}

// connect makes a session on a new channel.
func (l *inletLink) connect(ctx context.Context, first int) (session, error) {
	ch, err := l.caller.Dial(ctx, first)
	if err != nil {
		return nil, err
	}
	l.pathMade(ch.State().Route)
	return &lasting{Session: tunnel.NewClient(ch, l.in.tunnelConfig(&l.in.cfg.Channels)), ch: ch}, nil
}

// pathMade counts an attempt over a route that has worked.
func (l *inletLink) pathMade(route int) {
	l.worked(route)
	l.in.connects.WithLabelValues(code.OK.String()).Inc()
}

// attemptFailed counts an attempt over a route that has not.
func (l *inletLink) attemptFailed(route int, err error) {
	l.in.handshakes.observe(err)
	l.in.auditHandshake(l.outlet, "", l.routes.of(route).String(), err)
	l.in.connects.WithLabelValues(label(err, code.Unreachable)).Inc()
	l.link.failed(route, err)
	l.giveUp()
}

func (l *inletLink) pathLost(c *channel.Channel, route int, err error) {
	l.in.paths.lost(err)
	l.in.tellPathLost(c, err)
	l.routes.set(route, err) // until it works again
	l.in.log.Log(l.in.pathLevel(), "path lost, streams wait for another",
		zap.Stringer("peer", l.outlet), zap.Stringer("channel", c.ID()), zap.Stringer("route", l.routes.of(route)),
		zap.String("code", pathLabel(err)), zap.String("reason", err.Error()))
}

func (l *inletLink) pathMoved(c *channel.Channel, m channel.Move) {
	l.told.forget()
	l.in.trust.shown(c)
	l.pathMade(m.Route)
	l.in.paths.moved(m)
	l.in.tellPathMoved(c, m, l.routes.of(m.Route).String())
	l.in.log.Log(l.in.pathLevel(), "path changed",
		moveFields(m, zap.Stringer("peer", l.outlet), zap.Stringer("channel", c.ID()), zap.Stringer("route", l.routes.of(m.Route)))...)
}

func (l *inletLink) fields(r route.Route) []zap.Field {
	return []zap.Field{zap.Stringer("peer", l.outlet), zap.Stringer("route", r)}
}

// sayOf is say of a channel, and of the route of its path or its last one.
func (l *inletLink) sayOf(h *held, loud zapcore.Level, message, code string, err error) {
	s := h.session.(*lasting)
	l.say(loud, message, l.routes.of(s.ch.State().Route), code, err, zap.Stringer("channel", s.ch.ID()))
}

// say logs what happens at each retry again at debug.
func (l *inletLink) say(loud zapcore.Level, message string, r route.Route, code string, err error, more ...zap.Field) {
	fields, text := append(l.fields(r), more...), ""
	if err != nil {
		text = err.Error()
		fields = append(fields, zap.String("code", code), zap.String("reason", text))
		if loud >= zapcore.WarnLevel { // an end that is meant wants nothing done
			fields = remedied(fields, code)
		}
	}
	l.in.quietly(l.told, loud, message, r.String()+text, fields...)
}

func (l *inletLink) failed(r route.Route, err error) {
	l.say(zapcore.WarnLevel, "cannot reach the outlet, trying on", r, label(err, code.Unreachable), err)
}

func (l *inletLink) opened(h *held) {
	ch := h.session.(*lasting).ch
	l.in.trust.shown(ch) // since its handshake things may have changed
	l.in.auditChannel(ch.ID(), ch.Peer(), l.routes.of(ch.State().Route).String())
	l.sayOf(h, zapcore.InfoLevel, "channel opened", "", nil)
}

func (l *inletLink) replaced(h *held) {
	l.sayOf(h, zapcore.InfoLevel, "another channel takes new streams, the old one still waits for a path", "", nil)
}

func (l *inletLink) draining(h *held) {
	l.sayOf(h, zapcore.InfoLevel, "outlet is draining, opening another channel", "", nil)
}

// ended logs a session's end. After one that had lasted, all that happens is
// news again.
func (l *inletLink) ended(h *held, err error, settled bool) {
	if settled {
		l.told.forget()
	}
	c, ch := label(err, code.ChannelLost), h.session.(*lasting).ch
	l.in.auditChannelEnd(ch.ID(), ch.Peer(), c, err, time.Since(h.since))
	switch c {
	case code.OK.String(), code.Shutdown.String(), code.Draining.String():
		l.sayOf(h, zapcore.InfoLevel, "channel closed", c, err)
	default:
		l.in.paths.channelLost(c)
		l.sayOf(h, zapcore.WarnLevel, "channel lost", c, err)
	}
}
