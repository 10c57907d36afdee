package culvert

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A Config is what dialers and listeners have in common. But for the identity the zero
// value of each field is the default. It is read by [NewDialer] and [Listen] alone, and
// whatever it points to is not written. What is wrong with it, all of it, is their error.
type Config struct {
	// Identity is who the program is. Exactly one of it and IdentityFile is set.
	Identity *identity.Identity
	// IdentityFile is the private identity file of it ("culvert identity new"). When its
	// key is replaced ("culvert identity rotate"), handshakes use the new one within
	// seconds.
	IdentityFile string
	// State is a folder, made at the first start, for what is to be known after a
	// restart: which keys peers have replaced, the program's credential, revocation
	// lists. "": nothing is. It is one dialer's or listener's own.
	State string
	// Name is what this process calls itself to its peers ([identity.CheckName]): one
	// that starts later under the same identity and name takes its place, so that what
	// a crash has left ends at once and not after Grace. "": none.
	Name string

	// Authorities are those whose credentials and revocations count, beside the
	// program's own; at most [credential.MaxAuthorities] with that. None: no credential
	// counts, and nobody has attributes.
	Authorities []identity.Identifier
	// Ticket enrols the program at its authority, once: what that issues is kept in
	// State, which has to be set, and renewed as long as the program runs. "": none.
	Ticket string
	// Authority is whose credential the program has, where no Ticket and nothing in
	// State says so, and AuthorityRoutes are the ways there, the best first.
	Authority       identity.Identifier
	AuthorityRoutes []string
	// KubernetesToken is the file of a projected service account token that enrols at
	// Authority, in the place of a Ticket. "": none.
	KubernetesToken string

	// Keepalive is after what time a peer that was sent nothing is pinged; one that is
	// silent for twice as long has lost its path. 1 s to 30 s; 0: 5 s.
	Keepalive time.Duration
	// Grace is how long streams wait for another path. 1 s to 1 h; 0: 60 s. The two
	// ends have their own, and the shorter one counts.
	Grace time.Duration
	// Buffers bounds what all channels together hold for sending again, in bytes:
	// beyond it Write waits. At least 1 MiB; 0: 256 MiB.
	Buffers int64
	// ClockSkew is how far others' clocks may be off. 1 s to 5 min; 0: 5 min.
	ClockSkew time.Duration

	// Audit is the file of the audit log (docs/audit.md), or stdout or stderr; "": none.
	// With AuditStrict nothing is allowed that cannot be recorded.
	Audit       string
	AuditStrict bool
	// Log is told what happens, as the daemons' logs are; its name has culvert.inlet or
	// culvert.outlet added. Nil: nobody is.
	Log *zap.Logger
	// Metrics gets the metrics culvert_… of docs/metrics.md, until the end. Where a
	// program has several dialers and listeners with metrics, a label has to tell them
	// apart: give each one's registerer a value of it ([prometheus.WrapRegistererWith]).
	// Nil: nobody does.
	Metrics prometheus.Registerer
}

// A checker collects what is wrong with a config.
type checker struct{ faults []error }

func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
}

// err returns all faults in one error, nil where there are none.
func (c *checker) err(what string) error {
	if len(c.faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errors.Join(c.faults...))
}

// duration checks one that may be 0.
func (c *checker) duration(field string, d, least, most time.Duration) time.Duration {
	if d != 0 && (d < least || d > most) {
		c.fault(field, "%s: want %s to %s, or 0 for the default", d, least, most)
	}
	return d
}

// identifiers checks that each of a list is somebody's: a zero one is a variable that
// was never set.
func (c *checker) identifiers(field string, ids []identity.Identifier) {
	for i, id := range ids {
		if id.IsZero() {
			c.fault(fmt.Sprintf("%s[%d]", field, i), "it is the zero identifier, which is nobody's")
		}
	}
}

// routes parses routes to an outlet, or to whatever is at their end where that is zero.
func (c *checker) routes(field string, texts []string, outlet identity.Identifier) (routes []route.Route) {
	for i, text := range texts {
		r, err := route.Parse(text)
		if err == nil {
			err = config.CheckRoute(r, outlet)
		}
		if err != nil {
			c.fault(fmt.Sprintf("%s[%d]", field, i), "%w", err)
			continue
		}
		routes = append(routes, r)
	}
	return routes
}

// common returns the settings that every command has.
func (c *checker) common(cfg *Config) (common config.Common, channels config.Channels, trust config.Trust) {
	common = config.Common{
		Identity: cfg.IdentityFile, State: cfg.State, Audit: cfg.Audit,
		Keepalive: c.duration("Keepalive", cfg.Keepalive, config.MinKeepalive, config.MaxKeepalive),
		ClockSkew: c.duration("ClockSkew", cfg.ClockSkew, config.MinSkew, config.MaxSkew),
	}
	names := map[string]string{"identity": "IdentityFile", "state": "State", "audit": "Audit", "authorities": "Authorities", "relays": "Relays", "listen": "Listen"}
	common.Call(names)
	switch {
	case cfg.Identity == nil && cfg.IdentityFile == "":
		c.fault("Identity", "there is none: set it, or IdentityFile")
	case cfg.Identity != nil && cfg.IdentityFile != "":
		c.fault("Identity", "IdentityFile is set, too: set one of them")
	case cfg.Identity != nil:
		common.Hold(cfg.Identity)
		names["identity"] = "Identity"
	}
	if cfg.AuditStrict {
		common.AuditFailure = config.AuditDeny
		if cfg.Audit == "" {
			c.fault("AuditStrict", "there is no audit log that could fail: set Audit")
		}
	}
	channels = config.Channels{Name: cfg.Name, Grace: c.duration("Grace", cfg.Grace, time.Second, config.MaxGrace), Buffers: cfg.Buffers}
	if cfg.Name != "" {
		if err := identity.CheckName(cfg.Name); err != nil {
			c.fault("Name", "%w", err)
		}
	}
	if cfg.Buffers != 0 && cfg.Buffers < config.MinBuffers {
		c.fault("Buffers", "%d: want at least %d, or 0 for the default", cfg.Buffers, config.MinBuffers)
	}
	return common, channels, c.trust(cfg)
}

// trust returns the settings about credentials.
func (c *checker) trust(cfg *Config) (t config.Trust) {
	t.Authorities, t.KubernetesToken = slices.Clone(cfg.Authorities), cfg.KubernetesToken
	c.identifiers("Authorities", cfg.Authorities)
	if n := len(cfg.Authorities); n > credential.MaxAuthorities-1 { // one more may be that of the own credential
		c.fault("Authorities", "there are %d, at most %d are trusted", n, credential.MaxAuthorities-1)
	}
	t.Authority = config.AuthorityRef{Identifier: cfg.Authority, Routes: c.routes("AuthorityRoutes", cfg.AuthorityRoutes, cfg.Authority)}
	if cfg.Ticket != "" {
		ticket, err := credential.ParseTicket(cfg.Ticket)
		if err == nil {
			t.Ticket = &ticket
			t.TicketRoutes, err = config.TicketRoutes(ticket)
		}
		if err != nil {
			c.fault("Ticket", "%w", err)
		}
	}
	named := !cfg.Authority.IsZero()
	switch {
	case cfg.Ticket != "" && cfg.State == "":
		c.fault("Ticket", "what it brings has to be kept for the next start, which cannot use it again: set State")
	case t.Ticket != nil && named && t.Ticket.Authority != cfg.Authority:
		c.fault("Ticket", "it is of the authority %s, and Authority is another", t.Ticket.Authority)
	case cfg.Ticket != "" && cfg.KubernetesToken != "":
		c.fault("KubernetesToken", "a Ticket enrols already: set one of the two")
	case cfg.KubernetesToken != "" && !named:
		c.fault("KubernetesToken", "say which Authority takes it")
	case named && len(cfg.AuthorityRoutes) == 0:
		c.fault("AuthorityRoutes", "there is none: say how to reach the Authority")
	case !named && len(cfg.AuthorityRoutes) > 0:
		c.fault("Authority", "there are AuthorityRoutes: say whom they lead to")
	case named && cfg.Ticket == "" && cfg.KubernetesToken == "" && cfg.State == "":
		c.fault("Authority", "there is no credential that could be renewed there: set Ticket or KubernetesToken, or the State that has one")
	}
	return t
}

// observed makes what a dialer or listener is observed by.
func (cfg *Config) observed(kind config.Kind) *obs.Obs {
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	return obs.Embed(string(kind), log)
}

// register registers the metrics where they are wanted; undo, nil for nothing, takes
// them away.
func (cfg *Config) register(o *obs.Obs) (undo func(), err error) {
	if cfg.Metrics == nil {
		return nil, nil
	}
	if err := cfg.Metrics.Register(o.Registry); err != nil {
		return nil, fmt.Errorf("registering Metrics: %w", err)
	}
	return func() { cfg.Metrics.Unregister(o.Registry) }, nil
}
