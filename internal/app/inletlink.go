package app

import (
	"context"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// An inletLink is a link whose ups and downs are logged.
type inletLink struct {
	*link
	in   *Inlet
	told quiet
}

func (in *Inlet) newLink(outlet identity.Identifier, routes []route.Route) *inletLink {
	l := &inletLink{link: newLink(outlet, routes), in: in}
	l.connect = func(ctx context.Context, r route.Route) (session, error) { return in.connect(ctx, outlet, r) }
	l.trace = linkTrace{failed: l.failed, opened: l.opened, draining: l.draining, ended: l.ended}
	return l
}

func (l *inletLink) fields(r route.Route) []zap.Field {
	return []zap.Field{zap.Stringer("peer", l.outlet), zap.Stringer("route", r)}
}

// say logs what happens at each retry again at debug.
func (l *inletLink) say(loud zapcore.Level, message string, r route.Route, code string, err error) {
	fields, text := l.fields(r), ""
	if err != nil {
		text = err.Error()
		fields = append(fields, zap.String("code", code), zap.String("reason", text))
	}
	l.in.log.Log(l.told.level(message+r.String()+text, loud), message, fields...)
}

func (l *inletLink) failed(r route.Route, err error) {
	l.say(zapcore.WarnLevel, "cannot open a channel, trying on", r, label(err, code.Unreachable), err)
}

func (l *inletLink) opened(h *held) {
	l.say(zapcore.InfoLevel, "channel opened", l.routes[h.route], "", nil)
}

func (l *inletLink) draining(h *held) {
	l.say(zapcore.InfoLevel, "outlet is draining, opening another channel", l.routes[h.route], "", nil)
}

// ended logs a session's end. After one that had lasted, all that happens is
// news again.
func (l *inletLink) ended(h *held, err error, settled bool) {
	if settled {
		l.told.forget()
	}
	switch c := label(err, code.ChannelLost); c {
	case code.OK.String(), code.Shutdown.String(), code.Draining.String():
		l.say(zapcore.InfoLevel, "channel closed", l.routes[h.route], c, err)
	default:
		l.say(zapcore.WarnLevel, "channel lost", l.routes[h.route], c, err)
	}
}
