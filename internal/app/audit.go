package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/audit"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// openAudit opens the audit log, if the settings have one, and makes its metrics
// and, where nothing is allowed without it, the check of whether it works.
func (b *base) openAudit() (*audit.Log, error) {
	c, o := b.common, b.obs
	if c.Audit == "" {
		return nil, nil
	}
	failing := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "culvert_audit_failing", Help: "1 while lines of the audit log wait that cannot be written, or were dropped, else 0.",
	})
	l, err := audit.New(audit.Config{
		Process: audit.Process{Component: o.Command(), Identifier: b.local.Identifier(), Instance: b.local.Instance().String()},
		To:      c.Audit,
		Strict:  c.AuditFailure == config.AuditDeny,
		Failed: func(err error) {
			failing.Set(1)
			b.log.Error("audit log fails, trying on", zap.String("audit", c.Audit), zap.String("audit_failure", c.AuditFailure), zap.Error(err))
		},
		Recovered: func(dropped uint64) {
			failing.Set(0)
			b.log.Info("audit log is written again", zap.String("audit", c.Audit), zap.Uint64("dropped", dropped))
		},
	})
	if err != nil {
		return nil, c.Fault("audit", err)
	}
	o.Registry.MustRegister(failing, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "culvert_audit_lines_total", Help: "Lines of the audit log that were written.",
	}, func() float64 { return float64(l.Stats().Written) }), prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "culvert_audit_dropped_total", Help: "Lines of the audit log that were dropped, since they could not be written.",
	}, func() float64 { return float64(l.Stats().Dropped) }))
	if c.AuditFailure == config.AuditDeny {
		o.Ready.SetFunc("audit", l.Ready)
	}
	return l, nil
}

// auditPeer returns what the audit log says of a peer.
func auditPeer(p channel.Peer) audit.Peer {
	return audit.Peer{Identifier: p.Identifier, Instance: p.Instance.String()}
}

// auditJudged is auditPeer for a decision, with the credentials that count for it.
func (b *base) auditJudged(p channel.Peer) audit.Peer {
	a := auditPeer(p)
	if b.audit == nil {
		return a
	}
	a.Credentials = serials(b.trust.judge(p).credentials)
	return a
}

// auditShown is auditPeer for a peer of which nothing counts, with the credentials
// that it has shown.
func (b *base) auditShown(p channel.Peer) audit.Peer {
	a := auditPeer(p)
	if b.audit != nil {
		a.Credentials = serials(b.trust.shows(p))
	}
	return a
}

func serials(credentials []*credential.Credential) []string {
	var list []string
	for _, c := range credentials {
		list = append(list, c.Serial.String())
	}
	return list
}

// unrecorded is what a peer is told, who need not know where the log goes.
const unrecorded = "what is allowed here cannot be recorded now"

// grant records that e is allowed. An error says that it must not be, since it
// cannot be recorded, and is not for the peer; the log then has e's refusal, or
// its end, as far as it can be written.
func (b *base) grant(e *audit.Event) error { return auditAllowed(b.audit, e) }

// auditAllowed is grant for a log.
func auditAllowed(l *audit.Log, e *audit.Event) error {
	e.Code = code.OK.String()
	recorded, err := l.Allow(e)
	if err == nil {
		return nil
	}
	refused := *e
	refused.Code, refused.Reason = code.AuditFailed.String(), err.Error()
	if recorded {
		refused.Kind = audit.End
		l.Record(&refused)
	} else {
		auditDenied(l, &refused)
	}
	return err
}

// deny records that e, which has its code and reason, is not allowed.
func (b *base) deny(e *audit.Event) { auditDenied(b.audit, e) }

// auditDenied is deny for a log.
func auditDenied(l *audit.Log, e *audit.Event) {
	e.Kind, e.Allowed = audit.Decision, false
	l.Record(e)
}

// end records the end of what was allowed as e.
func (b *base) end(e *audit.Event, label, reason string, took time.Duration) {
	e.Kind, e.Code, e.Reason, e.Duration = audit.End, label, reason, took
	b.audit.Record(e)
}

// streamID names a stream as both ends of its channel do.
func streamID(ch channel.ID, stream uint32) string { return fmt.Sprintf("%s/%d", ch, stream) }

// auditUnopened records that a client got no stream.
func (in *Inlet) auditUnopened(s *inletService, outlet identity.Identifier, client string, e streamEnd) {
	if in.audit != nil {
		in.deny(&audit.Event{
			Action: audit.Open, Peer: audit.Peer{Identifier: outlet}, Service: s.Service, Client: client, Code: e.label, Reason: e.reason,
		})
	}
}

// An auditedStream is what is recorded of an inlet's stream.
type auditedStream struct {
	event audit.Event
	began time.Time
}

// auditOpened records that a client got a stream, or says why it must not. It
// returns nil where nothing is recorded.
func (in *Inlet) auditOpened(s *inletService, client string, st *tunnel.Stream, h *held) (*auditedStream, error) {
	if in.audit == nil {
		return nil, nil
	}
	ch := h.session.(*lasting).ch
	a := &auditedStream{audit.Event{
		Action: audit.Open, ID: streamID(ch.ID(), st.ID()), Peer: in.auditJudged(ch.Peer()), Service: s.Service, Client: client,
	}, time.Now()}
	return a, in.grant(&a.event)
}

// auditClosed records the end of a stream.
func (in *Inlet) auditClosed(a *auditedStream, e streamEnd) {
	if a != nil {
		a.event.ToService, a.event.ToClient = e.sent, e.received
		in.end(&a.event, e.label, e.reason, time.Since(a.began))
	}
}

// auditChannel records a channel that was opened, which by itself allows nothing.
func (b *base) auditChannel(ch channel.ID, peer channel.Peer, route string) {
	if b.audit != nil {
		b.audit.Record(&audit.Event{
			Kind: audit.Decision, Allowed: true, Action: audit.Channel, ID: ch.String(), Peer: b.auditJudged(peer), Route: route, Code: code.OK.String(),
		})
	}
}

// auditChannelEnd records its end.
func (b *base) auditChannelEnd(ch channel.ID, peer channel.Peer, label string, err error, took time.Duration) {
	if b.audit == nil {
		return
	}
	b.end(&audit.Event{Action: audit.Channel, ID: ch.String(), Peer: auditPeer(peer)}, label, errText(err), took)
}

// auditRefusal records a channel, or a path of one, that a peer did not get.
func (b *base) auditRefusal(a audit.Action, peer channel.Peer, route, label, reason string) {
	if b.audit != nil {
		b.deny(&audit.Event{Action: a, Peer: b.auditJudged(peer), Route: route, Code: label, Reason: reason})
	}
}

// auditHandshake records that a peer was turned away for what it has proven to
// be: another than was wanted, an identity that is known better, or one that is
// revoked. Who has proven nothing is no matter of decisions. want is who was
// called, zero where the peer has called.
func (b *base) auditHandshake(want identity.Identifier, remote, route string, err error) {
	var wrong *channel.IdentityError
	var revoked *channel.PeerError
	if b.audit == nil || !errors.As(err, &wrong) && !errors.As(err, &revoked) && !errors.Is(err, identity.ErrRolledBack) && !errors.Is(err, identity.ErrDiverged) {
		return
	}
	peer := audit.Peer{Identifier: want}
	if p := provenPeer(err); p != nil && (want.IsZero() || p.Identifier == want) {
		peer = b.auditShown(*p)
	}
	b.deny(&audit.Event{
		Action: audit.Handshake, Peer: peer, Remote: remote, Route: route,
		Code: label(err, code.Internal), Reason: err.Error(),
	})
}

// provenPeer returns who was turned away in a handshake that failed with err, or
// nil where it was not proven.
func provenPeer(err error) *channel.Peer {
	var h *channel.HandshakeError
	if !errors.As(err, &h) {
		return nil
	}
	return h.Peer
}

// peerField is the log's field for who was turned away, if that was proven.
func peerField(err error) zap.Field {
	if p := provenPeer(err); p != nil {
		return zap.Stringer("peer", p.Identifier)
	}
	return zap.Skip()
}

// auditGrant records that a relay allows a request. It is the server's Audit.
func (r *Relay) auditGrant(g relay.Grant) error {
	e := audit.Event{
		Action: audit.Action(g.Request), ID: r.grantID(g.ID), Peer: r.auditJudged(g.Peer), Remote: g.Remote.String(), Target: g.Target, Service: g.Service,
	}
	if err := r.grant(&e); err != nil {
		return errors.New(unrecorded) // the log has the rest
	}
	return nil
}

// grantID names a request that a relay allowed.
func (r *Relay) grantID(n uint64) string { return fmt.Sprintf("%s/%d", r.local.Instance(), n) }

// auditRefused records a request that a relay refused, whether or not it had been
// allowed before.
func (r *Relay) auditRefused(f *relay.Refusal, label, reason string) {
	if r.audit == nil || f.Code == code.AuditFailed {
		return // which auditGrant has recorded
	}
	e := audit.Event{Action: audit.Action(f.Request), Peer: r.auditJudged(f.Peer), Remote: f.Remote.String(), Target: f.Target, Service: f.Service, Code: label, Reason: reason}
	if f.Grant == 0 {
		r.deny(&e)
		return
	}
	e.ID = r.grantID(f.Grant)
	r.end(&e, label, reason, 0)
}

// auditFound records the end of a find: its answer.
func (r *Relay) auditFound(f *relay.Finding) {
	if r.audit != nil {
		r.end(&audit.Event{
			Action: audit.Find, ID: r.grantID(f.Grant), Peer: auditPeer(f.Peer), Remote: f.Remote.String(), Service: f.Service,
		}, code.OK.String(), "", 0)
	}
}

// auditAbandoned records that a caller left before the answer.
func (r *Relay) auditAbandoned(p channel.Peer, request string, grant uint64, err error) {
	if r.audit != nil && grant != 0 {
		r.end(&audit.Event{Action: audit.Action(request), ID: r.grantID(grant), Peer: auditPeer(p)}, remedy.Cancelled, err.Error(), 0)
	}
}

// auditUnregistered records the end of a registration.
func (r *Relay) auditUnregistered(s *relay.RegistrationStatus, c code.Code, err error) {
	if r.audit != nil {
		r.end(&audit.Event{
			Action: audit.Register, ID: r.grantID(s.Grant), Peer: audit.Peer{Identifier: s.Identifier, Instance: s.Instance}, Remote: s.Remote,
		}, known(c), errText(err), time.Since(s.Since))
	}
}

// auditJoinEnd records the end of a join.
func (r *Relay) auditJoinEnd(j *relay.JoinStatus, c code.Code, err error) {
	if r.audit != nil {
		r.end(&audit.Event{
			Action: audit.Action(j.Kind), ID: r.grantID(j.Grant), Peer: audit.Peer{Identifier: j.Caller, Instance: j.CallerInstance},
			Target: j.Target, ToService: j.ToTarget, ToClient: j.ToCaller,
		}, known(c), errText(err), time.Since(j.Since))
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
