package app

import (
	"slices"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Follow makes the relay take what changes in its settings file: register, connect,
// extend, authorities and log_level. reread reads the settings anew, as they were
// read at the start. It is called before Run.
func (r *Relay) Follow(reread func() (*config.Relay, error)) {
	started := r.cfg
	r.file.follow(func() (*revision, error) {
		cfg, err := reread()
		if err != nil {
			return nil, err
		}
		rules, err := newRelayRules(cfg)
		if err != nil {
			return nil, err
		}
		return &revision{
			restart: config.Changed(&started, cfg, "register", "connect", "extend", "authorities", "log_level"),
			apply: func() error {
				return r.base.apply(&cfg.Common, &started.Trust, cfg.Authorities, func() { r.policy.rules.Store(rules) })
			},
		}, nil
	})
}

// Follow makes the outlet take what changes in its settings file: services,
// authorities and log_level. Streams of a service that is offered no more are cut;
// those of one that has another target go on to the one before, and those of one that
// has other limits are kept to them. See [Relay.Follow].
func (out *Outlet) Follow(reread func() (*config.Outlet, error)) {
	started := out.cfg
	out.file.follow(func() (*revision, error) {
		cfg, err := reread()
		if err != nil {
			return nil, err
		}
		offered, err := out.offer(cfg)
		if err != nil {
			return nil, err
		}
		rules := newOutletRules(cfg.Services)
		return &revision{
			restart: config.Changed(&started, cfg, "services", "authorities", "log_level"),
			apply: func() error {
				return out.apply(&cfg.Common, &started.Trust, cfg.Authorities, func() {
					// First who may, then what there is: what is new is not asked for before.
					out.policy.rules.Store(rules)
					offered.inForce()
					out.offered.Store(offered)
				})
			},
		}, nil
	})
}

// Follow makes the inlet take what changes in its settings file: authorities and
// log_level. See [Relay.Follow].
func (in *Inlet) Follow(reread func() (*config.Inlet, error)) {
	started := in.cfg
	in.file.follow(func() (*revision, error) {
		cfg, err := reread()
		if err != nil {
			return nil, err
		}
		// What runs are the services of the start.
		if i := slices.IndexFunc(started.Services, func(s config.InletService) bool { return s.ByName() }); i >= 0 && len(in.trusted(&started.Trust, cfg.Authorities)) == 0 {
			return nil, noAuthority(&started, i)
		}
		return &revision{
			restart: config.Changed(&started, cfg, "authorities", "log_level"),
			apply: func() error {
				return in.apply(&cfg.Common, &started.Trust, cfg.Authorities, func() {})
			},
		}, nil
	})
}

// Follow makes the authority take what changes in its settings file: log_level. See
// [Relay.Follow].
func (a *Authority) Follow(reread func() (*config.Authority, error)) {
	started := a.cfg
	a.file.follow(func() (*revision, error) {
		cfg, err := reread()
		if err != nil {
			return nil, err
		}
		return &revision{
			restart: config.Changed(&started, cfg, "log_level"),
			apply:   func() error { return a.obs.SetLogLevel(cfg.LogLevel) },
		}, nil
	})
}

// apply puts settings into force that processes of several kinds have, and by set
// those of one kind, which cannot fail. On an error nothing has changed. Whatever
// lives is asked about again: what may not be any more ends within 5 s. started are
// the settings at the start, which still say whose the own credential is.
func (b *base) apply(c *config.Common, started *config.Trust, authorities []identity.Identifier, set func()) error {
	all := b.trusted(started, authorities)
	if !b.trust.sameAs(all) {
		if err := b.member.retrust(c, all); err != nil {
			return err
		}
	}
	if err := b.obs.SetLogLevel(c.LogLevel); err != nil {
		return c.Fault("log_level", err)
	}
	set()
	b.trust.changed()
	return nil
}

// trusted returns who is trusted where settings name those authorities.
func (b *base) trusted(started *config.Trust, authorities []identity.Identifier) []identity.Identifier {
	trusted := *started
	trusted.Authorities = authorities
	all := trusted.Trusted()
	if own := b.member.authority; !own.IsZero() && !slices.Contains(all, own) {
		all = append(all, own)
	}
	return all
}
