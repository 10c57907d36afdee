package app

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// An OutletPolicy says which peers may use which services of an outlet. It is safe
// for concurrent use:
// other settings take its place as a whole.
type OutletPolicy struct {
	rules atomic.Pointer[outletRules]
}

// outletRules are what an OutletPolicy has now. They do not change.
type outletRules struct {
	services map[string]*policy.Policy // by name
	names    []string                  // in the settings' order
}

// NewOutletPolicy returns the policy that an outlet with these services has.
func NewOutletPolicy(services []config.OutletService) *OutletPolicy {
	p := &OutletPolicy{}
	p.rules.Store(newOutletRules(services))
	return p
}

func newOutletRules(services []config.OutletService) *outletRules {
	rules := &outletRules{services: make(map[string]*policy.Policy, len(services))}
	for _, s := range services {
		rules.services[s.Name] = s.Allow
		rules.names = append(rules.names, s.Name)
	}
	return rules
}

// Services returns the names of the services, in the settings' order.
func (p *OutletPolicy) Services() []string { return p.rules.Load().names }

// Has reports whether there is a service of that name.
func (p *OutletPolicy) Has(service string) bool {
	_, ok := p.rules.Load().services[service]
	return ok
}

// Decide says whether the peer may use the service.
func (p *OutletPolicy) Decide(r *policy.Request) policy.Decision {
	if r.Action != policy.Open {
		return policy.Decision{Reason: "an outlet decides about open only"}
	}
	return p.rules.Load().services[r.Service].Decide(r)
}

// looks reports whether what is decided about a service depends on a variable.
func (p *OutletPolicy) looks(service, variable string) bool {
	return p.rules.Load().services[service].Uses(variable)
}

// timed reports whether what is decided can change as time passes.
func (p *OutletPolicy) timed() bool {
	return slices.ContainsFunc(p.Services(), func(name string) bool { return p.looks(name, "now") })
}

// knows reports whether the peer may use any service now.
func (p *OutletPolicy) knows(peer policy.Peer) bool {
	rules := p.rules.Load()
	for _, name := range rules.names {
		if rules.services[name].Allows(&policy.Request{Peer: peer, Action: policy.Open, Service: name}) {
			return true
		}
	}
	return false
}

// A RelayPolicy says who may do what at a relay. It is safe for concurrent use:
// other settings take its place as a whole.
type RelayPolicy struct {
	rules atomic.Pointer[relayRules]
}

// relayRules are what a RelayPolicy has now. They do not change.
type relayRules struct {
	register, connect *policy.Policy
	extend            *policy.Policy  // nil: those of the two above
	addresses         map[string]bool // canonical host:port
	anywhere          bool            // extend decides about the address alone
}

// NewRelayPolicy returns the policy that a relay with these settings has.
func NewRelayPolicy(cfg *config.Relay) (*RelayPolicy, error) {
	rules, err := newRelayRules(cfg)
	if err != nil {
		return nil, err
	}
	p := &RelayPolicy{}
	p.rules.Store(rules)
	return p, nil
}

func newRelayRules(cfg *config.Relay) (*relayRules, error) {
	p := &relayRules{register: cfg.Register, connect: cfg.Connect, extend: cfg.Extend.Allow, addresses: map[string]bool{}}
	for i, a := range cfg.Extend.To {
		// The relay compares the spelling that routes have.
		host, port, err := route.ParseAddress(a.URL())
		if err != nil {
			return nil, cfg.Fault(listKey("extend", i, ""), err)
		}
		p.addresses[route.Hop{Host: host, Port: port}.Address()] = true
	}
	p.anywhere = len(p.addresses) == 0 && p.extend.Uses("to")
	return p, nil
}

// Decide says whether the peer may do what it asks for.
func (p *RelayPolicy) Decide(r *policy.Request) policy.Decision { return p.rules.Load().decide(r) }

func (p *relayRules) decide(r *policy.Request) policy.Decision {
	switch r.Action {
	case policy.Register:
		return p.register.Decide(r)
	case policy.Connect:
		return p.connect.Decide(r)
	case policy.Extend:
		return p.decideExtend(r)
	}
	return policy.Decision{Reason: "a relay decides about register, connect and extend only"}
}

// decideExtend asks where, then who. Unless extend says who itself, those are
// carried on that may use this relay at all: an inlet on its way to an outlet's
// relay, or an outlet on its way to its own.
func (p *relayRules) decideExtend(r *policy.Request) policy.Decision {
	switch {
	case !p.anywhere && !p.addresses[r.To]:
		return policy.Decision{Reason: fmt.Sprintf("%q is not on the list of addresses to be carried on to", r.To)}
	case p.extend != nil:
		return p.extend.Decide(r)
	}
	var reasons []string
	for _, other := range []struct {
		action policy.Action
		policy *policy.Policy
	}{{policy.Connect, p.connect}, {policy.Register, p.register}} {
		asked := *r
		asked.Action, asked.To = other.action, ""
		d := other.policy.Decide(&asked)
		if d.Allowed {
			return d
		}
		reasons = append(reasons, string(other.action)+": "+d.Reason)
	}
	return policy.Decision{Reason: "peer may neither connect nor register here: " + strings.Join(reasons, "; ")}
}

// looks reports whether what is decided about an action depends on a variable.
func (p *RelayPolicy) looks(a policy.Action, variable string) bool {
	return p.rules.Load().looks(a, variable)
}

func (p *relayRules) looks(a policy.Action, variable string) bool {
	switch {
	case a == policy.Register:
		return p.register.Uses(variable)
	case a == policy.Connect:
		return p.connect.Uses(variable)
	case p.extend != nil:
		return p.extend.Uses(variable)
	}
	return p.register.Uses(variable) || p.connect.Uses(variable)
}

// timed reports whether what is decided can change as time passes.
func (p *RelayPolicy) timed() bool {
	rules := p.rules.Load()
	return rules.register.Uses("now") || rules.connect.Uses("now") || rules.extend.Uses("now")
}

// knows reports whether a peer may register or connect here now.
func (p *RelayPolicy) knows(who policy.Peer) bool {
	rules := p.rules.Load()
	return rules.register.Allows(&policy.Request{Peer: who, Action: policy.Register}) ||
		rules.connect.Allows(&policy.Request{Peer: who, Action: policy.Connect})
}

// A relayGuard asks a relay's policy about peers as their credentials have them.
type relayGuard struct {
	policy *RelayPolicy
	trust  *trust
}

// allow is Decide as a relay's authorizers have it. The caller hears that it is
// not allowed, and what is wrong with its credential; the log why.
func (g *relayGuard) allow(peer channel.Peer, r policy.Request, other code.Code, what string) error {
	j := g.trust.judge(peer)
	d := j.decide(r, g.policy.Decide, other, "is not allowed to "+what, g.policy.looks(r.Action, "peer.attr"))
	if d == nil {
		return nil
	}
	return &relay.DeniedError{Code: d.code, Told: d.told, Why: d.why}
}

func (g *relayGuard) mayRegister(peer channel.Peer) error {
	return g.allow(peer, policy.Request{Action: policy.Register}, code.RegisterDenied, "register at this relay")
}

func (g *relayGuard) mayConnect(peer channel.Peer, outlet identity.Identifier) error {
	return g.allow(peer, policy.Request{Action: policy.Connect, Target: outlet}, code.ConnectDenied, "connect at this relay")
}

// offers returns what reports whether an outlet's credentials say now that it offers a
// service, nil while no authority is trusted.
func (g *relayGuard) offers() func(channel.Peer, string) bool {
	if !g.trust.enabled.Load() {
		return nil
	}
	return func(outlet channel.Peer, service string) bool {
		return credential.HasService(g.trust.judge(outlet).Attr, service)
	}
}

func (g *relayGuard) mayExtend(peer channel.Peer, address string) error {
	return g.allow(peer, policy.Request{Action: policy.Extend, To: address}, code.ExtendDenied, fmt.Sprintf("be carried on to %s by this relay", address))
}
