// Package ping measures the ways by which an inlet reaches a service: each hop of
// each route, the handshake with the outlet behind them, round trips on the channel,
// and, where that is asked for, whether the outlet opens the service. It says of what
// does not work what to change.
//
// It goes these ways as the inlet would, by the inlet's identity, credential and
// settings, and as a process of its own beside an inlet that runs: with an instance of
// its own and no name, so that it takes nobody's place. It writes nothing into the
// inlet's folder `state`, enrols nowhere and keeps no channel.
package ping

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds and defaults of a [Config].
const (
	MaxCount        = 100_000
	DefaultCount    = 5
	DefaultInterval = 200 * time.Millisecond
	DefaultTimeout  = 20 * time.Second
)

// A Config says what to measure. Inlet is required.
type Config struct {
	Inlet   *config.Inlet
	Service string // "": the only one that there is

	Count    int           // PINGs on each way, at most MaxCount; 0: DefaultCount
	Interval time.Duration // between them; 0: DefaultInterval
	Timeout  time.Duration // for one way until its channel is open, and for the service to be opened; 0: DefaultTimeout
	Open     bool          // ask the outlet to open the service, which connects to the target

	Trace Trace
}

// A Trace is told what a [Pinger] finds, as it does. Any func may be nil. They are
// called one at a time and must neither change nor keep what they are given.
type Trace struct {
	Began   func(*Way)
	Stepped func(*Way, Step)
	Pinged  func(*Way) // all of its PINGs were sent
	Ended   func(*Way) // it has worked, or not
}

func (t Trace) filled() Trace {
	if t.Began == nil {
		t.Began = func(*Way) {}
	}
	if t.Stepped == nil {
		t.Stepped = func(*Way, Step) {}
	}
	if t.Pinged == nil {
		t.Pinged = func(*Way) {}
	}
	if t.Ended == nil {
		t.Ended = func(*Way) {}
	}
	return t
}

// A Pinger measures the ways to one service. It is made by [New] and used by one
// goroutine.
type Pinger struct {
	cfg      Config
	services []config.InletService // of that name: an inlet may offer it at several addresses
	local    *channel.Local
	verifier *credential.Verifier
	notes    []string

	// How long the end of a way waits for the target to end when its client has, and for
	// the outlet to have heard of all that: closeTime, but in tests.
	targetEnds, outletHears time.Duration
}

// A ServiceError says that the settings have no service of the name.
type ServiceError struct {
	Name  string   // "": none was named
	Known []string // in the order of the settings
}

// Error names the services that there are.
func (e *ServiceError) Error() string {
	there := "there are " + strings.Join(e.Known, ", ")
	if len(e.Known) == 1 {
		there = "there is " + e.Known[0]
	}
	if e.Name == "" {
		return "name the service to ping: " + there
	}
	return fmt.Sprintf("the inlet has no service %q: %s", e.Name, there)
}

// New reads the identity, and what the folder `state` has. Its error names the
// setting at fault, or is a [*ServiceError].
func New(cfg Config) (*Pinger, error) {
	p := &Pinger{cfg: cfg, targetEnds: closeTime, outletHears: closeTime}
	p.cfg.Trace = cfg.Trace.filled()
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&p.cfg.Interval, DefaultInterval}, {&p.cfg.Timeout, DefaultTimeout}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if p.cfg.Count <= 0 {
		p.cfg.Count = DefaultCount
	}
	p.cfg.Count = min(p.cfg.Count, MaxCount)
	if err := p.choose(); err != nil {
		return nil, err
	}
	if err := p.identify(); err != nil {
		return nil, err
	}
	return p, nil
}

// choose finds the services that are meant. Those that have the same ways are one.
func (p *Pinger) choose() error {
	var known []string
	for _, s := range p.cfg.Inlet.Services {
		if !slices.Contains(known, s.Service) {
			known = append(known, s.Service)
		}
	}
	name := p.cfg.Service
	if name == "" && len(known) == 1 {
		name = known[0]
	}
	ways := map[string]bool{}
	for _, s := range p.cfg.Inlet.Services {
		key := s.Outlet.String()
		for _, r := range s.Routes {
			key += " " + r.String()
		}
		if s.Service == name && !ways[key] {
			ways[key] = true
			p.services = append(p.services, s)
		}
	}
	if len(p.services) == 0 {
		return &ServiceError{Name: name, Known: known}
	}
	p.cfg.Service = name
	return nil
}

// identify makes this process what the inlet is to others.
func (p *Pinger) identify() error {
	in := p.cfg.Inlet
	id, err := identity.ReadFile(in.Identity)
	if err != nil {
		return in.Fault("identity", err)
	}
	memory := identity.NewMemory(0)
	if p.verifier, err = credential.NewVerifier(credential.Config{Authorities: in.Trusted(), Skew: in.ClockSkew, Memory: memory}); err != nil {
		return in.Fault("authorities", err)
	}
	p.local, err = channel.NewLocalWith(id, channel.LocalConfig{Memory: memory, Skew: in.ClockSkew, Admit: p.admit})
	if err != nil {
		return in.Fault("identity", err)
	}
	if in.State != "" {
		if err := p.remember(memory); err != nil {
			return in.Fault("state", err)
		}
	}
	p.note()
	return nil
}

// remember reads what the inlet knows of others and of itself.
func (p *Pinger) remember(memory *identity.Memory) error {
	in := p.cfg.Inlet
	if err := memory.Load(in.Histories()); err != nil {
		return err
	}
	store := member.NewStore(in.State, p.local.Identifier())
	m, err := store.Load()
	if err != nil {
		return err
	}
	if m != nil {
		if all := in.Trusted(); !slices.Contains(all, m.Authority) {
			if err := p.verifier.Trust(append(all, m.Authority)); err != nil {
				return err
			}
		}
		if err := p.local.SetCredentials([][]byte{m.Bundle}); err != nil {
			return err
		}
		if c, _, err := credential.Inspect(m.Bundle); err == nil && time.Now().After(c.NotAfter) {
			p.notes = append(p.notes, fmt.Sprintf("the inlet's credential has ended at %s: start the inlet, which renews it", c.NotAfter.Format(time.RFC3339)))
		}
		return store.LoadLists(p.verifier)
	}
	if in.Ticket != nil {
		p.notes = append(p.notes, "the inlet has not enrolled yet, and so shows no credential: start it, and ping again")
	}
	return store.LoadLists(p.verifier)
}

// note says what this process cannot know of the inlet.
func (p *Pinger) note() {
	in := p.cfg.Inlet
	if in.State == "" && in.KubernetesToken != "" {
		p.notes = append(p.notes, "the inlet has its credential in its memory alone, and this ping shows none: give the inlet a folder (state:) to ping as it is seen by others")
	}
}

// admit refuses whoever is revoked, as the inlet does.
func (p *Pinger) admit(peer channel.Peer) error {
	if err := p.verifier.Revoked(peer.Identifier); err != nil {
		return &channel.PeerError{Code: code.IdentityRevoked, Err: err}
	}
	return nil
}

// offers says why an outlet has not proven that it offers the service, or returns nil.
func (p *Pinger) offers(peer channel.Peer) error {
	v, err := p.verifier.Judge(p.verifier.Prove(peer.Identifier, peer.Credentials), time.Now())
	var nothing *credential.Error
	switch {
	case errors.As(err, &nothing):
		return &channel.PeerError{Code: nothing.Code, Err: fmt.Errorf("%s does not prove that it offers %s: %w", peer.Identifier, p.cfg.Service, nothing)}
	case credential.HasService(v.Attributes, p.cfg.Service):
		return nil
	}
	return &channel.PeerError{Code: code.AttributeMissing, Err: fmt.Errorf("%s does not prove that it offers %s: none of its credentials says service=%s", peer.Identifier, p.cfg.Service, p.cfg.Service)}
}

// Run measures all ways, one after the other, until that is done or ctx ends, and
// returns what it has found. Nothing of it runs any more then.
func (p *Pinger) Run(ctx context.Context) *Report {
	r := &Report{Service: p.cfg.Service, Inlet: p.local.Identifier().String(), Notes: p.notes, Ways: []*Way{}}
	for _, s := range p.services {
		for i, route := range s.Routes {
			if ctx.Err() != nil {
				break
			}
			at := place{route: route, number: i + 1, of: len(s.Routes), outlet: s.Outlet}
			if s.ByName() {
				r.Ways = append(r.Ways, p.findAndMeasure(ctx, at)...)
			} else {
				r.Ways = append(r.Ways, p.measure(ctx, at))
			}
		}
	}
	r.Interrupted = ctx.Err() != nil
	for _, w := range r.Ways {
		r.Works = r.Works || w.Works
	}
	return r
}
