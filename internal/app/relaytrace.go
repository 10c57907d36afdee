package app

import (
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
)

// relayMetrics count what a relay does.
type relayMetrics struct {
	finds      prometheus.Counter
	ended      *prometheus.CounterVec // code; of joins
	refusals   *prometheus.CounterVec // code
	handshakes *handshakeMetrics
}

func newRelayMetrics(r prometheus.Registerer, s *relay.Server) *relayMetrics {
	m := &relayMetrics{
		finds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "culvert_relay_finds_total", Help: "Callers that were told which outlets offer a service, or that none does.",
		}),
		ended:      newCounterVec(r, "culvert_relay_joins_ended_total", "Joins that have ended, by how: ok is an end that both sides have said; aborted is one by either side's loss.", "code"),
		refusals:   newCounterVec(r, "culvert_relay_refusals_total", "Requests that were refused, by code.", "code"),
		handshakes: newHandshakeMetrics(r),
	}
	for _, c := range []code.Code{code.RegisterDenied, code.ConnectDenied, code.ExtendDenied, code.NotRegistered, code.Busy, code.Draining, code.Limit, code.FindDenied} {
		m.refusals.WithLabelValues(c.String()) // shown from the start
	}
	for _, c := range []code.Code{code.OK, code.Aborted, code.Draining, code.Timeout, code.Shutdown} {
		m.ended.WithLabelValues(c.String())
	}
	r.MustRegister(m.finds, relayCounts{s})
	return m
}

// trace logs and counts what the server does. The metrics are made after the
// server, which does nothing before.
func (r *Relay) trace() *relay.Trace {
	return &relay.Trace{
		AcceptPaused: func(err error, pause time.Duration) {
			r.quietly(&r.toldTroubles, zapcore.ErrorLevel, "cannot accept connections now, trying on", err.Error(), zap.Error(err), zap.Duration("pause", pause))
		},
		HandshakeFailed: r.handshakeFailed,
		Refused: func(f relay.Refusal) {
			reason := f.Reason
			if f.Why != "" {
				reason += ": " + f.Why
			}
			r.auditRefused(&f, known(f.Code), reason)
			if f.Usual {
				return
			}
			r.metrics.refusals.WithLabelValues(known(f.Code)).Inc()
			r.quietly(&r.toldRefusals, zapcore.WarnLevel, "request refused", f.Peer.Identifier.String()+f.Request+f.Target+f.Service+f.Reason,
				zap.Stringer("peer", f.Peer.Identifier), zap.Stringer("remote", f.Remote), zap.String("request", f.Request),
				zap.String("target", f.Target), zap.String("service", f.Service), zap.Stringer("code", f.Code), zap.String("reason", reason), relayRemedy(f.Code))
		},
		Abandoned: func(p channel.Peer, request string, grant uint64, err error) {
			r.auditAbandoned(p, request, grant, err)
			r.log.Debug("caller left", zap.Stringer("peer", p.Identifier), zap.String("request", request), zap.Error(err))
		},
		Registered: func(s relay.RegistrationStatus) {
			r.log.Info("outlet registered", registrationFields(s)...)
		},
		RegistrationEnded: func(s relay.RegistrationStatus, c code.Code, err error) {
			r.auditUnregistered(&s, c, err)
			fields := append(registrationFields(s), zap.Stringer("code", c), zap.Duration("duration", time.Since(s.Since)))
			r.log.Info("outlet unregistered", withReason(fields, err)...)
		},
		SpareLost: func(p channel.Peer, err error) {
			r.log.Debug("spare connection lost", zap.Stringer("peer", p.Identifier), zap.Error(err))
		},
		Joined: func(j relay.JoinStatus) {
			r.log.Log(joinLevel(j), "joined", joinFields(j)...)
		},
		JoinEnded: func(j relay.JoinStatus, c code.Code, err error) {
			r.metrics.ended.WithLabelValues(known(c)).Inc()
			r.auditJoinEnd(&j, c, err)
			fields := append(joinFields(j), zap.Stringer("code", c), zap.Int64("to_target", j.ToTarget), zap.Int64("to_caller", j.ToCaller), zap.Duration("duration", time.Since(j.Since)))
			level := joinLevel(j)
			if j.ToTarget+j.ToCaller > 0 {
				level = zapcore.InfoLevel
			}
			r.log.Log(level, "join ended", withReason(fields, err)...)
		},
		Found: func(f relay.Finding) {
			r.metrics.finds.Inc()
			r.auditFound(&f)
			r.log.Debug("outlets found", zap.Stringer("peer", f.Peer.Identifier), zap.String("service", f.Service), zap.Int("listed", f.Listed), zap.Int("left_out", f.LeftOut))
		},
	}
}

// relayRemedy is the log's field for what the relay's operator can do about a refusal,
// which is nobody else's to know: package remedy has what the one who is refused can.
func relayRemedy(c code.Code) zap.Field {
	const key = "remedy"
	switch c {
	case code.RegisterDenied:
		return zap.String(key, "if this peer is to offer an outlet here, list it under register: in this relay's settings")
	case code.ConnectDenied:
		return zap.String(key, "if this peer is to reach outlets here, list it under connect: in this relay's settings")
	case code.ExtendDenied:
		return zap.String(key, "if this peer is to be carried on, list the address under extend:, and the peer under connect: or register:, in this relay's settings")
	case code.FindDenied:
		return zap.String(key, "if services are to be found by their names here, set authorities: or ticket: in this relay's settings, and give outlets the attribute service")
	case code.Limit:
		return zap.String(key, "if this is meant, raise the limit under limits: in this relay's settings")
	default:
		return zap.Skip()
	}
}

// handshakeFailed logs what anybody on the network can cause.
func (r *Relay) handshakeFailed(remote net.Addr, err error) {
	r.metrics.handshakes.observe(err)
	r.auditHandshake(identity.Identifier{}, remote.String(), "", err)
	c := label(err, code.Unreachable)
	r.quietly(&r.toldHandshakes, zapcore.InfoLevel, "handshake failed", err.Error(), peerField(err), zap.Stringer("remote", remote), zap.String("code", c), zap.String("reason", err.Error()))
}

func registrationFields(s relay.RegistrationStatus) []zap.Field {
	return []zap.Field{zap.Stringer("peer", s.Identifier), zap.String("instance", s.Instance), zap.String("remote", s.Remote)}
}

// joinLevel is for a join of which nothing is known but its kind. An outlet
// behind this relay and another is carried on every 10 s only to learn the
// other's addresses, so that such a join is worth a line when it has moved bytes.
func joinLevel(j relay.JoinStatus) zapcore.Level {
	if j.Kind == "extend" {
		return zapcore.DebugLevel
	}
	return zapcore.InfoLevel
}

func joinFields(j relay.JoinStatus) []zap.Field {
	return []zap.Field{zap.String("request", j.Kind), zap.Stringer("peer", j.Caller), zap.String("target", j.Target)}
}

// withReason adds why something ended, unless it was a clean end.
func withReason(fields []zap.Field, err error) []zap.Field {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return fields
	}
	return append(fields, zap.String("reason", err.Error()))
}
