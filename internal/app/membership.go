package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// authorityBuffers bounds what the channel to the authority holds, in bytes.
const authorityBuffers = 16 << 20

// A membership keeps the process's own credential, by a channel to the authority.
// The zero membership has none to keep.
type membership struct {
	b         *base
	authority identity.Identifier
	routes    []route.Route
	member    *member.Member // nil: this process is nobody's member
	store     *member.Store  // of the folder `state`; nil: there is none
	caller    *channel.Caller
	told      quiet

	enrolled     chan struct{} // closed once there is a credential
	enrolledOnce sync.Once
	renewed      func() // shows the new credential to whom it matters; set by the process, nil for nobody

	mu      sync.Mutex
	channel *channel.Channel // the present one to the authority; nil: none

	// Of the goroutine that rechecks.
	departing *channel.Channel // whose departure it is
	departure departure

	renewals *prometheus.CounterVec // result
}

// newMembership reads what the folder `state` has, and makes the authority trusted.
func (b *base) newMembership(cfg *config.Trust) (*membership, error) {
	m := &membership{b: b, enrolled: make(chan struct{}), authority: cfg.Authority.Identifier, routes: cfg.Authority.Routes}
	var stored *member.Membership
	if b.common.State != "" {
		m.store = member.NewStore(b.common.State, b.Identifier())
		var err error
		if stored, err = m.store.Load(); err != nil {
			return nil, b.common.Fault("state", err)
		}
		if err := m.complete(cfg, stored); err != nil {
			return nil, b.common.Fault("state", err)
		}
		if cfg.TicketFile != "" && m.authority.IsZero() { // there is neither a ticket nor a credential
			return nil, b.common.Fault("ticket_file", fmt.Errorf("%s: %w, and the folder %s has no credential yet: put a ticket there (\"culvert ticket create\" makes one)", cfg.TicketFile, fs.ErrNotExist, b.common.State))
		}
	}
	if m.authority.IsZero() {
		close(m.enrolled) // there is nothing to wait for
		if err := m.loadLists(b.trust.verifier); err != nil {
			return nil, b.common.Fault("state", err)
		}
		m.logKept(stored)
		return m, nil
	}
	if all := cfg.Trusted(); !slices.Contains(all, m.authority) {
		if err := b.trust.trusts(append(all, m.authority)); err != nil {
			return nil, b.common.Fault("authorities", err)
		}
	}
	m.caller = m.newCaller()
	mc := member.Config{
		Identifier: b.Identifier(), Authority: m.authority, Verifier: b.trust.verifier, Open: m.open,
		Store: m.store, Ticket: cfg.Ticket, Trace: m.trace(),
	}
	for _, r := range m.routes {
		mc.Routes = append(mc.Routes, r.String())
	}
	mc.Routes = mc.Routes[:min(len(mc.Routes), credential.MaxTicketRoutes)]
	if cfg.KubernetesToken != "" {
		mc.Token = func() (credential.Secret, error) { return readToken(cfg.KubernetesToken) }
	}
	var err error
	if m.member, err = member.New(mc); err != nil {
		return nil, b.common.Fault("state", err)
	}
	m.logKept(stored)
	m.register(b.obs.Registry)
	if bundle := m.member.Bundle(); bundle != nil {
		m.show(bundle)
	}
	return m, nil
}

// loadLists makes v know the lists that are kept of the authorities that it trusts.
func (m *membership) loadLists(v *credential.Verifier) error {
	if m.store == nil {
		return nil
	}
	return m.store.LoadLists(v)
}

// retrust makes authorities the trusted ones while the process runs, with the lists
// that are kept of them: who is revoked is so whenever its authority was named. On an
// error, which names a setting of c, nothing has changed.
func (m *membership) retrust(c *config.Common, authorities []identity.Identifier) error {
	t := m.b.trust
	// Another verifier first: what is wrong with a file is to be known before
	// anything changes.
	v, err := credential.NewVerifier(credential.Config{Authorities: authorities, Skew: m.b.common.ClockSkew})
	if err != nil {
		return c.Fault("authorities", err)
	}
	if err := m.loadLists(v); err != nil {
		return c.Fault("state", err)
	}
	before := t.verifier.Authorities()
	if err := t.trusts(authorities); err != nil {
		return c.Fault("authorities", err)
	}
	if err := m.loadLists(t.verifier); err != nil { // exchanged meanwhile
		return c.Fault("state", errors.Join(err, t.trusts(before), m.loadLists(t.verifier)))
	}
	m.logKept(nil)
	return nil
}

// What the log says of a folder `state` that lacks something.
const (
	noList       = "no revocation list is kept of an authority that is trusted: what it has revoked is unknown until its list comes"
	noCredential = "no credential is kept beside the authority's revocation list, which holds: its file has gone, or was never written; enrolling" //nolint:gosec // G101: a text
)

// logKept says what was not kept that could have been: a file that was removed must
// not make anybody unrevoked without a word.
func (m *membership) logKept(stored *member.Membership) {
	v := m.b.trust.verifier
	for _, a := range v.Authorities() {
		log := m.b.log.With(zap.Stringer("authority", a))
		switch listed := v.List(a) != nil; {
		case !listed && stored != nil && stored.Authority == a:
			log.Warn(noList)
		case !listed:
			log.Info(noList)
		case a == m.authority && m.member.Bundle() == nil:
			log.Warn(noCredential)
		}
	}
}

// complete finds out which authority it is, where the settings do not say: the
// ticket's, or that of the credential that there is.
func (m *membership) complete(cfg *config.Trust, stored *member.Membership) error {
	switch {
	case !m.authority.IsZero():
	case cfg.Ticket != nil:
		m.authority, m.routes = cfg.Ticket.Authority, cfg.TicketRoutes
	case stored != nil:
		m.authority = stored.Authority
		for _, text := range stored.Routes {
			r, err := route.Parse(text)
			if err != nil {
				return fmt.Errorf("a route that was kept with the credential: %w", err)
			}
			m.routes = append(m.routes, r)
		}
	}
	if !m.authority.IsZero() && len(m.routes) == 0 {
		return fmt.Errorf("there is a credential of authority %s, and no route to it: write one (authority: with identifier and routes)", m.authority)
	}
	return nil
}

// readToken reads a projected service account token.
func readToken(path string) (credential.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return credential.Secret{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, credential.MaxToken+1))
	defer clear(b)
	switch {
	case err != nil:
		return credential.Secret{}, err
	case len(b) == 0 || len(b) > credential.MaxToken:
		return credential.Secret{}, fmt.Errorf("%s has %d bytes, want a token of 1 to %d", path, len(b), credential.MaxToken)
	}
	return credential.NewSecret(b), nil
}

// newCaller returns what makes channels to the authority, as an inlet does to an
// outlet.
func (m *membership) newCaller() *channel.Caller {
	path := m.b.newDialer().Path
	return &channel.Caller{
		Local: m.b.local, Peer: m.authority, Routes: len(m.routes),
		Path: func(ctx context.Context, i int, instance *channel.Instance, address int) (net.Conn, error) {
			nc, err := path(ctx, m.routes[i], m.authority, instance, address)
			if err == nil {
				m.b.tune(nc)
			}
			return nc, err
		},
		Settings: channel.Settings{
			Keepalive: m.b.common.Keepalive, Buffers: channel.NewBuffers(authorityBuffers),
			Trace: &channel.Trace{Moved: func(ch *channel.Channel, _ channel.Move) { m.b.trust.shown(ch) }},
		},
	}
}

// open opens a stream to the authority on a channel of its own.
func (m *membership) open(ctx context.Context) (net.Conn, error) {
	ch, err := m.caller.Dial(ctx, 0)
	if err != nil {
		return nil, err
	}
	c := &authorityConn{
		m: m, session: &lasting{Session: tunnel.NewClient(ch, tunnel.Config{}), ch: ch}, done: make(chan struct{}),
	}
	m.set(ch)
	m.b.trust.shown(ch)                // since its handshakes things may have changed
	life := context.WithoutCancel(ctx) // which bounds the opening alone
	go func() {
		defer close(c.done)     // which Close waits for
		_ = c.session.Run(life) // the stream says why
	}()
	if c.Stream, err = c.session.Open(ctx, tunnel.Open{Service: authority.ServiceName}); err == nil {
		err = c.Answered(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// An authorityConn is the one stream of a channel to the authority.
type authorityConn struct {
	*tunnel.Stream
	m       *membership
	session *lasting
	done    chan struct{} // closed when the session has ended
}

// Close ends the stream and the channel, and returns when nothing of them runs.
func (c *authorityConn) Close() error {
	c.m.set(nil)
	c.session.Close(code.OK, "")
	c.session.hurry()
	<-c.done
	return nil
}

func (m *membership) set(ch *channel.Channel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.channel = ch
}

// recheck gives up the channel to an authority that is revoked, and has it leave a path
// over a relay that is.
func (m *membership) recheck() {
	m.mu.Lock()
	ch := m.channel
	m.mu.Unlock()
	if ch == nil {
		return
	}
	if err := m.b.trust.admit(channel.Peer{Identifier: m.authority}); err != nil {
		ch.Fail(code.IdentityRevoked, err)
		return
	}
	if ch != m.departing {
		m.departing, m.departure = ch, departure{}
	}
	var revoked error
	if st := ch.State(); st.Up {
		revoked = m.b.trust.admitRoute(m.routes[st.Route])
	}
	m.b.depart(&m.departure, ch, revoked, ch.Move)
}

// show makes a credential what handshakes show from now on.
func (m *membership) show(bundle []byte) {
	if err := m.b.local.SetCredentials([][]byte{bundle}); err != nil {
		m.b.log.Error("the credential cannot be shown", zap.Error(err))
	}
	m.enrolledOnce.Do(func() { close(m.enrolled) })
}

// await waits until there is a credential, where there is to be one: what is
// begun without would be refused.
func (m *membership) await(ctx context.Context) {
	select {
	case <-m.enrolled:
	case <-ctx.Done():
	}
}

// run keeps the credential until ctx ends. An error means that only an operator
// can help.
func (m *membership) run(ctx context.Context) error {
	if m.member == nil {
		return nil
	}
	m.b.obs.Ready.SetFunc("credential", m.ready)
	err := m.member.Run(ctx)
	if err != nil {
		err = fmt.Errorf("enrolling at authority %s: %w", m.authority, err)
		m.b.log.Error("not enrolled", zap.Stringer("authority", m.authority), zap.Error(err))
	}
	return err
}

// ready returns nil while there is a credential that holds and is not revoked.
func (m *membership) ready() error {
	s := m.member.Status()
	switch {
	case s.Credential == nil && s.Err != nil:
		return fmt.Errorf("not enrolled: %w", s.Err)
	case s.Credential == nil:
		return errors.New("not enrolled: still connecting to the authority")
	case s.Credential.NotAfter.Before(time.Now()) && s.Err != nil:
		return fmt.Errorf("the credential ended at %s: %w", s.Credential.NotAfter.Format(time.RFC3339), s.Err)
	case s.Credential.NotAfter.Before(time.Now()):
		return fmt.Errorf("the credential ended at %s", s.Credential.NotAfter.Format(time.RFC3339))
	case s.Revoked != nil:
		return s.Revoked
	}
	return nil
}

func (m *membership) trace() *member.Trace {
	log := m.b.log.With(zap.Stringer("authority", m.authority))
	return &member.Trace{
		Issued: func(c *credential.Credential, bundle []byte, enrolled bool) {
			m.told.forget()
			m.renewals.WithLabelValues("ok").Inc()
			m.show(bundle)
			level, message := zapcore.DebugLevel, "credential renewed"
			if enrolled {
				level, message = zapcore.InfoLevel, "enrolled"
			}
			log.Log(level, message, zap.Stringer("serial", c.Serial), zap.Any("attributes", c.Attributes), zap.Time("expires", c.NotAfter))
			m.refresh()
		},
		Listed: func(l *credential.List) {
			log.Info("revocation list holds", zap.Uint64("number", l.Number()), zap.Int("entries", l.Set().Len()))
			m.b.trust.changed()
		},
		Failed: func(err error) {
			m.renewals.WithLabelValues("failed").Inc()
			if errors.Is(err, identity.ErrDiverged) {
				m.b.trust.changed() // the authority itself has shown it, to the memory of peers
			}
			m.b.quietly(&m.told, zapcore.WarnLevel, "authority cannot be reached, or refuses: trying on", err.Error(),
				zap.Stringer("authority", m.authority), zap.String("code", memberLabel(err)), zap.Error(err))
		},
		Unkept: func(err error) {
			log.Error("what the authority has said cannot be kept, and is forgotten when this process ends", zap.Error(err))
		},
		Ended: func(c *credential.Credential) {
			log.Error("credential has ended and is not renewed: peers will refuse what it was for", zap.Stringer("serial", c.Serial), zap.Time("expired", c.NotAfter))
		},
		Revoked: func(c *credential.Credential, why *credential.Error) {
			message := "credential is revoked: peers refuse what it was for; asking for another"
			if why.Code == code.IdentityRevoked {
				message = "identity is revoked, for ever: peers refuse it: make a new identity, and enrol that"
			}
			m.b.log.Error(message, zap.Stringer("authority", why.Authority), zap.String("code", why.Code.String()), zap.Stringer("serial", c.Serial), zap.Error(why))
		},
	}
}

// memberLabel is label for what a member has failed at.
func memberLabel(err error) string {
	var refused *member.RefusedError
	if errors.As(err, &refused) {
		return known(refused.Code)
	}
	return label(err, code.Unreachable)
}

// refresh has paths made that show the new credential.
func (m *membership) refresh() {
	m.mu.Lock()
	ch := m.channel
	m.mu.Unlock()
	if ch != nil {
		ch.Renew()
	}
	if m.renewed != nil {
		m.renewed()
	}
}

func (m *membership) register(r prometheus.Registerer) {
	newGauge(r, "culvert_channel_credential_expires_timestamp_seconds", "When this process's credential ends; 0 while there is none.", func() float64 {
		if c := m.member.Status().Credential; c != nil {
			return float64(c.NotAfter.Unix())
		}
		return 0
	})
	newGauge(r, "culvert_channel_credential_lifetime_seconds", "How long this process's credential was issued for; 0 while there is none.", func() float64 {
		if c := m.member.Status().Credential; c != nil {
			return c.NotAfter.Sub(c.NotBefore).Seconds()
		}
		return 0
	})
	newGauge(r, "culvert_channel_authority_connected", "1 while there is a stream to the authority.", func() float64 {
		if m.member.Status().Connected {
			return 1
		}
		return 0
	})
	newGauge(r, "culvert_channel_revocation_list_number", "Number of the authority's revocation list that holds; 0 while there is none.", func() float64 {
		if l := m.b.trust.verifier.List(m.authority); l != nil {
			return float64(l.Number())
		}
		return 0
	})
	m.renewals = newCounterVec(r, "culvert_channel_credential_renewals_total", "Credentials that the authority has issued, and attempts at something with it that failed.", "result")
	m.renewals.WithLabelValues("ok")
	m.renewals.WithLabelValues("failed")
}

// A CredentialStatus is the process's own credential, and what it has of its
// authority.
type CredentialStatus struct {
	Authority       string            `json:"authority"`
	Connected       bool              `json:"connected"`
	Serial          string            `json:"serial,omitempty"` // "": not enrolled yet
	Attributes      map[string]string `json:"attributes,omitempty"`
	Expires         *time.Time        `json:"expires,omitempty"`
	Renewal         *time.Time        `json:"renewal,omitempty"`         // when it is due
	RevocationList  uint64            `json:"revocation_list,omitempty"` // its number; 0: none yet
	RevocationCount int               `json:"revocations"`
	Revoked         string            `json:"revoked,omitempty"` // by whom, and what to do; "": it is not
	LastError       string            `json:"last_error,omitempty"`
}

// status returns nil for a process that is nobody's member.
func (m *membership) status() *CredentialStatus {
	if m.member == nil {
		return nil
	}
	s := m.member.Status()
	st := &CredentialStatus{Authority: m.authority.String(), Connected: s.Connected}
	if c := s.Credential; c != nil {
		st.Serial, st.Attributes, st.Expires, st.Renewal = c.Serial.String(), c.Attributes, &c.NotAfter, &s.Renewal
	}
	if l := m.b.trust.verifier.List(m.authority); l != nil {
		st.RevocationList, st.RevocationCount = l.Number(), l.Set().Len()
	}
	if s.Revoked != nil {
		st.Revoked = s.Revoked.Error()
	}
	if s.Err != nil {
		st.LastError = s.Err.Error()
	}
	return st
}

// awaited returns why there is no credential yet that is waited for, or nil.
func (m *membership) awaited() error {
	select {
	case <-m.enrolled:
		return nil
	default:
		return m.ready()
	}
}
