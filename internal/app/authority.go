package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/kubetoken"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// authorityBounds are those of an authority's channels. Its members all hold one,
// and a rollout brings hundreds of newcomers at once. Strangers have a minute to
// become members, and send what a few tokens have: identities cost nothing, so that
// there may be any number of those who mean no more than to hold places.
func (a *Authority) authorityBounds() *channelBounds {
	return &channelBounds{
		all: 16_384, strangers: 512, eachStranger: 4,
		yields: true, idle: a.isIdle, time: authority.EnrolTime, bytes: 256 << 10,
	}
}

// authorityStreams is how many streams one channel to an authority may have: a
// member needs one, and another while that one is being ended.
const authorityStreams = 2

// authorityUnanswered is how many a channel may have that are refused, or not answered
// yet, beside them: more than the races of one that closes what is refused.
const authorityUnanswered = 32

// memberWindow is what a member, and whoever else gets here, may have sent in one
// stream and the authority not have read, in bytes: many of the longest messages.
const memberWindow = 256 << 10

// An Authority is an outlet with one service, which this process serves itself:
// the streams of members. It is made by [NewAuthority] and started by
// [Authority.Run].
type Authority struct {
	*Outlet
	cfg    config.Authority
	tokens *kubetoken.Verifier // nil: no token is taken
	store  *authority.Store    // open from Listen to Run's end

	// deciding is nil before Listen. It is read by what can run before, and after.
	deciding atomic.Pointer[authority.Authority]

	issued, refused *prometheus.CounterVec

	// What can come again and again is told apart by who can cause it, as an
	// outlet's is: nobody hides what others do.
	toldKeys, toldMembers, toldNewcomers quiet
}

// NewAuthority checks the settings and reads the identity. It opens nothing yet.
func NewAuthority(cfg *config.Authority, o *obs.Obs) (*Authority, error) {
	a := &Authority{cfg: *cfg}
	a.cfg.SetDefaults()
	if a.cfg.Store == "" {
		return nil, a.cfg.Fault("store", errors.New("there is none: name a file"))
	}
	everyone, err := policy.Compile(policy.Open, "true")
	if err != nil {
		return nil, fmt.Errorf("making the policy of the authority's own service: %w", err)
	}
	out := &config.Outlet{
		Common: a.cfg.Common, Channels: a.cfg.Channels, Relays: a.cfg.Relays, Listen: a.cfg.Listen,
		// Whoever gets here may ask: what is asked for is decided by tickets,
		// tokens and the list of members.
		Services: []config.OutletService{{Name: authority.ServiceName, Allow: everyone}},
	}
	a.Outlet, err = newOutlet(out, hosting{
		kind: string(config.KindAuthority), known: a.isMember, bounds: a.authorityBounds(), streams: authorityStreams, unanswered: authorityUnanswered, window: memberWindow,
		handlers: map[string]streamHandler{authority.ServiceName: a.serveMember},
	}, o)
	if err != nil {
		return nil, err
	}
	if k := a.cfg.Kubernetes; k != nil {
		if a.tokens, err = kubetoken.New(a.kubetokens(k)); err != nil {
			return nil, a.cfg.Fault("kubernetes", err)
		}
	}
	a.register(o.Registry)
	a.listens(listPlaces(a.cfg.Listen), a.outletView(), a.decide)
	return a, nil
}

// kubetokens returns what a verifier of tokens is told by the settings.
func (a *Authority) kubetokens(k *config.Kubernetes) kubetoken.Config {
	return kubetoken.Config{
		Issuer: k.Issuer, Audience: k.Audience, JWKSURL: k.JWKSURL, KeysFile: k.KeysFile, CAFile: k.CAFile,
		BearerTokenFile: k.BearerTokenFile, Skew: k.ClockSkew, Algorithms: k.Algorithms, Namespaces: k.Namespaces, AllowWithoutPod: k.AllowWithoutPod,
		Refreshed: func(keys int, err error) {
			if err != nil {
				a.quietly(&a.toldKeys, zap.WarnLevel, "cannot read the keys of the Kubernetes issuer, trying on", err.Error(), zap.Int("keys_held", keys), zap.Error(err))
			}
		},
	}
}

func (a *Authority) register(r prometheus.Registerer) {
	a.issued = newCounterVec(r, "culvert_authority_credentials_issued_total", "Credentials issued, by what was asked: ticket, kubernetes or renew.", "request")
	a.refused = newCounterVec(r, "culvert_authority_requests_refused_total", "Requests refused, by the code that the member was told.", "code")
	newGauge(r, "culvert_authority_streams", "Streams of members, and of those that would be.", func() float64 {
		if d := a.deciding.Load(); d != nil {
			all, _ := d.Streams()
			return float64(all)
		}
		return 0
	})
	newGauge(r, "culvert_authority_revocations", "Entries of the newest revocation list.", func() float64 {
		if d := a.deciding.Load(); d != nil {
			_, entries := d.Number()
			return float64(entries)
		}
		return 0
	})
}

// isIdle reports whether nothing is being decided about a peer now.
func (a *Authority) isIdle(peer identity.Identifier) bool {
	d := a.deciding.Load()
	return d == nil || !d.Deciding(peer)
}

// isMember reports whether a peer is no stranger.
func (a *Authority) isMember(p policy.Peer) bool {
	d := a.deciding.Load()
	return d != nil && d.IsMember(p.ID)
}

// Listen opens the store, and all listeners or none. Run must follow it.
func (a *Authority) Listen(ctx context.Context) (err error) {
	if a.store, err = authority.OpenStore(a.cfg.Store, a.Identifier()); err != nil {
		return a.cfg.Fault("store", err)
	}
	if err := a.listen(ctx); err != nil {
		return errors.Join(err, a.store.Close())
	}
	return nil
}

func (a *Authority) listen(ctx context.Context) error {
	cfg := authority.Config{
		Identity: a.keys.current, Lifetime: a.cfg.CredentialLifetime, ListLifetime: a.cfg.ListLifetime, ForgetAfter: a.cfg.ForgetMembersAfter,
		RenewWithoutToken: a.cfg.RenewWithoutToken, Trace: a.trace(), Recorder: decisionLog{a.audit, byAdmin},
	}
	for _, r := range a.cfg.Routes {
		cfg.Routes = append(cfg.Routes, r.String())
	}
	if a.tokens != nil {
		cfg.Tokens = tokenVerifier{a.tokens, a}
	}
	d, err := authority.New(a.store, cfg)
	if err != nil {
		return err
	}
	a.deciding.Store(d)
	a.keys.taken = func(id *identity.Identity) {
		if err := d.SetIdentity(id); err != nil {
			a.log.Error("no revocation list could be made with the new key, trying on", zap.Error(err))
		}
	}
	if a.cfg.Admin != "" {
		access, err := admin.NewAccess(admin.AccessFile(a.cfg.Store))
		if err != nil {
			return a.cfg.Fault("admin", err)
		}
		a.more = map[string]http.Handler{admin.Prefix: admin.Handler(d, access)}
		a.adminTLS = access.ServerTLS()
	}
	return a.Outlet.Listen(ctx)
}

// Run is that of an outlet, with the store open from before until after it.
func (a *Authority) Run(ctx context.Context) error {
	if a.store == nil {
		if err := a.Listen(ctx); err != nil {
			return err
		}
	}
	err := a.Outlet.Run(ctx)
	// What else is open is closed: nobody uses the store any more.
	return errors.Join(err, a.store.Close())
}

// decide serves members until ctx ends, and looks after the store and the keys of
// tokens meanwhile.
func (a *Authority) decide(ctx context.Context) error {
	d := a.deciding.Load()
	number, entries := d.Number()
	a.log.Info("store opened", zap.String("file", a.cfg.Store), zap.Uint64("revocation_list", number), zap.Int("revocations", entries))
	lookCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	looking.Go(func() { d.Run(lookCtx) })
	if a.tokens != nil {
		looking.Go(func() { _ = a.tokens.Run(lookCtx) }) // ends with its context only
	}
	return a.work(ctx)
}

// serveMember serves one stream.
func (a *Authority) serveMember(ctx context.Context, st *tunnel.Stream, peer channel.Peer) error {
	return a.deciding.Load().Serve(ctx, peer.Identifier, st)
}

// hostCode returns the code with which a stream that this process serves ends.
func hostCode(err error) code.Code {
	var r *authority.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	c, _ := streamCode(err, code.Aborted)
	return c
}

func (a *Authority) trace() *authority.Trace {
	return &authority.Trace{
		Issued: func(i authority.Issue) {
			a.issued.WithLabelValues(i.Request).Inc()
			message, level := "credential renewed", zap.DebugLevel
			if i.New {
				message, level = "member enrolled", zap.InfoLevel
			}
			fields := []zap.Field{zap.Stringer("peer", i.Peer), zap.String("by", i.Request), zap.Stringer("serial", i.Serial), zap.Time("not_after", i.NotAfter)}
			if i.Ticket != (credential.TicketID{}) {
				fields = append(fields, zap.Stringer("ticket", i.Ticket))
			}
			if i.Subject != "" {
				fields = append(fields, zap.String("subject", i.Subject))
			}
			a.log.Log(level, message, fields...)
		},
		Refused: func(peer identity.Identifier, request string, r *authority.Refusal) {
			a.refused.WithLabelValues(r.Code.String()).Inc()
			fields := []zap.Field{zap.Stringer("peer", peer), zap.String("request", request), zap.String("code", r.Code.String()), zap.String("reason", r.Reason)}
			if r.Detail != nil {
				fields = append(fields, zap.Error(r.Detail))
			}
			told := &a.toldNewcomers
			if a.channels.knows(peer) {
				told = &a.toldMembers
			}
			a.log.Log(told.warning(peer.String(), request+r.Code.String()), "request refused", fields...)
		},
		Published: func(number uint64, entries int) {
			a.log.Info("revocation list made", zap.Uint64("number", number), zap.Int("entries", entries))
		},
		Changed: a.channels.reclass,
		Failed: func(doing string, err error) {
			a.log.Error(doing+" failed, trying on", zap.Error(err))
		},
	}
}

// A tokenVerifier tells a member what is the member's to know.
type tokenVerifier struct {
	*kubetoken.Verifier
	a *Authority
}

// Verify is [kubetoken.Verifier.Verify], whose refusals are the authority's.
func (v tokenVerifier) Verify(ctx context.Context, token string) (string, credential.Attributes, error) {
	subject, attributes, err := v.Verifier.Verify(ctx, token)
	var e *kubetoken.Error
	if errors.As(err, &e) {
		err = &authority.Refusal{Code: e.Code, Reason: e.Reason, Detail: e.Err}
	}
	return subject, attributes, err
}

// An Offline is an authority's store that this process has opened, since the
// authority does not run.
type Offline struct {
	*authority.Authority
	store *authority.Store
	audit *offlineAudit
}

// OpenOffline opens the store of the authority with these settings, for one
// command. The error wraps [authority.ErrInUse] if the authority runs.
func OpenOffline(cfg *config.Authority) (*Offline, error) {
	id, err := identity.ReadFile(cfg.Identity)
	if err != nil {
		return nil, cfg.Fault("identity", err)
	}
	if _, err := os.Stat(cfg.Store); err != nil {
		return nil, cfg.Fault("store", fmt.Errorf("the authority has not run yet, and has no store: %w", err))
	}
	store, err := authority.OpenStore(cfg.Store, id.Identifier())
	if err != nil {
		return nil, cfg.Fault("store", err)
	}
	log := &offlineAudit{cfg: cfg, owner: id.Identifier()}
	c := authority.Config{Identity: id, Lifetime: cfg.CredentialLifetime, ListLifetime: cfg.ListLifetime, Recorder: log}
	for _, r := range cfg.Routes {
		c.Routes = append(c.Routes, r.String())
	}
	a, err := authority.New(store, c)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &Offline{a, store, log}, nil
}

// Close lets the authority start. The error says also what could not be recorded of
// what was done.
func (o *Offline) Close() error { return errors.Join(o.store.Close(), o.audit.Close()) }

var _ interface {
	authority.Operator
	Backup(ctx context.Context, w io.Writer) error
	io.Closer
} = (*Offline)(nil)
