package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// agents are where an outlet registers. [Outlet.beginAgents] starts them; other settings
// change them while they run, one at a time.
type agents struct {
	begun chan struct{} // closed by beginAgents

	mu      sync.Mutex
	listed  []*agent // in the settings' order; another slice takes its place
	leaving []*agent // whose route is listed no more, as long as anything of them runs
	run     *agentsRun
	settled bool // nothing changes any more
}

// An agentsRun is what agents run in. Goroutines are started with the agents' mu, and
// not after settle.
type agentsRun struct {
	ctx     context.Context // of registrations, and of the channels that come by them
	running sync.WaitGroup
}

// newAgents returns the agents of these routes: those that there are already, and new
// ones.
func (out *Outlet) newAgents(routes []route.Route) (list []*agent, err error) {
	left := slices.Clone(out.agents.all())
	for _, r := range routes {
		if i := slices.IndexFunc(left, func(a *agent) bool { return slices.Equal(a.route, r) }); i >= 0 {
			list = append(list, left[i])
			left = slices.Delete(left, i, i+1)
			continue
		}
		a, err := out.newAgent(out.dialer, r)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// beginAgents registers everywhere, until ctx ends.
func (out *Outlet) beginAgents(ctx context.Context) *agentsRun {
	r := &agentsRun{ctx: ctx}
	s := &out.agents
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = r
	for _, a := range s.listed {
		out.register(r, a)
	}
	close(s.begun)
	return r
}

// register keeps the outlet registered by an agent. What comes by it outlives it, until
// the run ends.
func (out *Outlet) register(r *agentsRun, a *agent) {
	ctx, stop := context.WithCancel(r.ctx)
	a.live, a.until, a.stop = r.ctx, ctx, stop
	r.running.Go(func() {
		defer stop()
		out.member.await(ctx)
		_ = a.Run(ctx) // ends with its context only
		out.agents.forget(a)
	})
}

// exchangeAgents makes list the agents that there are. Relays that are not among theirs
// are told that the outlet goes away, and inlets whose paths come by them are asked to
// make others. Channels that have no other way go on over that one.
func (out *Outlet) exchangeAgents(list []*agent) {
	s := &out.agents
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled {
		return
	}
	before := s.listed
	s.listed = list
	for _, a := range list {
		if slices.Contains(before, a) {
			continue
		}
		for _, old := range s.leaving {
			if slices.Equal(old.route, a.route) {
				old.stop() // or the two would take each other's place again and again
			}
		}
		out.register(s.run, a)
	}
	for _, a := range before {
		if slices.Contains(list, a) {
			continue
		}
		s.leaving = append(s.leaving, a)
		s.run.running.Go(func() { out.leave(a) })
	}
}

const (
	// leaveLook is how often a relay that is to be left is looked at, to see whether
	// there is another one to go to.
	leaveLook = 50 * time.Millisecond
	// leaveAsk is how often inlets are asked to make other paths than by it.
	leaveAsk = 5 * time.Second
)

// leave drains a relay that the outlet is to register at no more. Inlets are asked to
// move once the outlet is registered elsewhere, so that they have somewhere to go. The
// registration ends when no path comes by it any more, at the latest after the drain
// time, or when the relay is listed anew.
func (out *Outlet) leave(a *agent) {
	defer a.stop()
	out.log.Info("relay is listed no more, leaving it", zap.Stringer("route", a.route))
	ctx, cancel := context.WithTimeout(a.until, out.drainTimeout())
	defer cancel()
	for waiting := true; waiting && !out.reachable(); {
		waiting = wait.Sleep(ctx, leaveLook)
	}
	for asking := true; asking && out.askAway(a); {
		asking = wait.Sleep(ctx, leaveAsk)
	}
}

// askAway tells the relays of an agent that the outlet goes away, asks inlets whose paths
// come by them to make others, and reports whether there are any. Of one that is not to
// go on, as its route is listed again, it tells and asks nobody.
func (out *Outlet) askAway(a *agent) (found bool) {
	s := &out.agents
	s.mu.Lock() // no route is listed again meanwhile
	defer s.mu.Unlock()
	if a.until.Err() != nil {
		return false
	}
	a.Drain()
	return out.channels.leave(a.brings, "the outlet leaves the relay")
}

// reachable reports whether inlets can come by a relay that is listed, or directly.
func (out *Outlet) reachable() bool {
	for _, a := range out.agents.all() {
		if slices.ContainsFunc(a.Status(), func(s relay.AddressStatus) bool { return s.Registered }) {
			return true
		}
	}
	return len(out.lns) > 0
}

// drain tells all relays that the outlet goes away, and has nothing changed any more.
func (s *agents) drain() {
	s.mu.Lock()
	s.settled = true
	s.mu.Unlock()
	for _, a := range s.every() {
		a.Drain()
	}
}

// all returns those that are listed, in the settings' order.
func (s *agents) all() []*agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed
}

// every returns all that run.
func (s *agents) every() []*agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.listed, s.leaving)
}

func (s *agents) forget(a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = slices.DeleteFunc(slices.Clone(s.leaving), func(other *agent) bool { return other == a })
}

// reload has the outlet work as other settings say, or changes nothing and says why.
func (out *Outlet) reload(cfg *config.Outlet, offered *offer, started *config.Trust) error {
	<-out.agents.begun
	list, err := out.newAgents(cfg.Relays)
	if err != nil {
		return cfg.Fault("relays", err)
	}
	rules := newOutletRules(cfg.Services)
	return out.apply(&cfg.Common, started, cfg.Authorities, func() {
		// First who may, then what there is: what is new is not asked for before.
		out.policy.rules.Store(rules)
		out.exchangeOffer(offered)
		out.dialTimeout.Store(int64(cfg.DialTimeout))
		out.limit(cfg.Limits)
		out.exchangeAgents(list)
	})
}
