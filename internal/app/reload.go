package app

import (
	"slices"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/sandbox"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// liveSettings are the settings that inlets, outlets and relays take while they run.
var liveSettings = []string{"authorities", "drain_timeout", "log_level"}

// rereading returns what a settingsKeeper follows: settings are read anew, and revise says
// what of them is put into force, and how.
func rereading[C any](reread func() (*C, error), revise func(cfg *C) (*revision, error)) func() (*revision, error) {
	return func() (*revision, error) {
		cfg, err := reread()
		if err != nil {
			return nil, err
		}
		return revise(cfg)
	}
}

// unlike returns the keys of what is not as it was at the start, but for live ones, and
// those that all take while they run.
func unlike[C any](started, cfg *C, live ...string) []string {
	return config.Changed(started, cfg, append(live, liveSettings...)...)
}

// Follow makes the relay take what changes in its settings file: register, connect,
// extend, and what others take, too. reread reads the settings anew, as they were
// read at the start. It is called before Run.
func (r *Relay) Follow(reread func() (*config.Relay, error)) {
	started := r.cfg
	r.file.follow(rereading(reread, func(cfg *config.Relay) (*revision, error) {
		rules, err := newRelayRules(cfg)
		if err != nil {
			return nil, err
		}
		restart := unlike(&started, cfg, "register", "connect", "extend")
		return r.revise(restart, &started.Trust, &cfg.Trust, relayFiles(cfg), func() error {
			return r.base.apply(&cfg.Common, &started.Trust, cfg.Authorities, func() { r.policy.rules.Store(rules) })
		}), nil
	}))
}

// Follow makes the outlet take what changes in its settings file: services, relays,
// dial_timeout, limits, and what others take, too. Streams of a service that is offered
// no more are cut; those of one that has another target go on to the one before, and
// those of one that has other limits are kept to them. See [Relay.Follow].
func (out *Outlet) Follow(reread func() (*config.Outlet, error)) {
	started := out.cfg
	out.file.follow(rereading(reread, func(cfg *config.Outlet) (*revision, error) {
		offered, err := out.offer(cfg)
		if err != nil {
			return nil, err
		}
		restart := unlike(&started, cfg, "services", "relays", "dial_timeout", "limits")
		return out.revise(restart, &started.Trust, &cfg.Trust, outletFiles(cfg), func() error {
			return out.reload(cfg, offered, &started.Trust)
		}), nil
	}))
}

// Follow makes the inlet take what changes in its settings file: services,
// connect_timeout, and what others take, too. Streams go on to where they lead,
// whatever becomes of their service. See [Relay.Follow].
func (in *Inlet) Follow(reread func() (*config.Inlet, error)) {
	started := in.cfg
	in.file.follow(rereading(reread, func(cfg *config.Inlet) (*revision, error) {
		if err := checkOffer(cfg, len(in.trusted(&started.Trust, cfg.Authorities)) > 0); err != nil {
			return nil, err
		}
		restart := unlike(&started, cfg, "services", "connect_timeout")
		return in.revise(restart, &started.Trust, &cfg.Trust, inletFiles(cfg), func() error {
			return in.reload(cfg, &started.Trust)
		}), nil
	}))
}

// Follow makes the authority take what changes in its settings file: log_level and
// drain_timeout. See [Relay.Follow].
func (a *Authority) Follow(reread func() (*config.Authority, error)) {
	started := a.cfg
	a.file.follow(rereading(reread, func(cfg *config.Authority) (*revision, error) {
		return &revision{
			restart: config.Changed(&started, cfg, "drain_timeout", "log_level"),
			apply: func() error {
				if err := a.obs.SetLogLevel(cfg.LogLevel); err != nil {
					return err
				}
				a.draining.Store(int64(cfg.DrainTimeout))
				return nil
			},
		}, nil
	}))
}

// revise returns the revision that apply puts into force. restart has the keys of what is
// not as it was at the start, and cannot be changed: what else waits for a restart, by what
// this process is now, is added. started and is are settings about credentials, f is what
// the new settings want to be open.
func (b *base) revise(restart []string, started, is *config.Trust, f sandbox.Files, apply func() error) *revision {
	if b.member.wants(started.Ticket, is.Ticket) {
		key := "ticket"
		if is.TicketFile != "" {
			key = "ticket_file"
		}
		restart = append(restart, key)
	}
	if !b.lacks(f) {
		return &revision{restart, apply}
	}
	return &revision{append(restart, "sandbox"), func() error {
		err := apply()
		if err == nil {
			b.log.Warn("the settings name hosts to be looked up, and did not when this process was confined: when another file takes the place of " +
				"the resolver's settings it cannot be read, restart this process before that")
		}
		return err
	}}
}

// wants reports whether another ticket than that of the start would count at a restart:
// one of another authority, or one for a process that has not enrolled.
func (m *membership) wants(started, is *credential.Ticket) bool {
	if is == nil || started != nil && started.Authority == is.Authority && started.ID == is.ID {
		return false
	}
	return m.member == nil || m.authority != is.Authority || m.member.Bundle() == nil
}

// apply puts settings into force that processes of several kinds have, and by set
// those of one kind, which cannot fail. On an error nothing has changed. Whatever
// lives is asked about again: what may not be any more ends within 5 s. started are
// the settings at the start, which still say whose the own credential is.
func (b *base) apply(c *config.Common, started *config.Trust, authorities []identity.Identifier, set func()) error {
	if err := obs.CheckLogLevel(c.LogLevel); err != nil {
		return c.Fault("log_level", err)
	}
	all := b.trusted(started, authorities)
	if !b.trust.sameAs(all) {
		if err := b.member.retrust(c, all); err != nil {
			return err
		}
	}
	_ = b.obs.SetLogLevel(c.LogLevel) // which was checked
	b.draining.Store(int64(c.DrainTimeout))
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
