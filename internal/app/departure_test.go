package app

import (
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// startNear starts a relay that carries everybody on to anywhere and trusts no
// authority: what is revoked is nothing to it.
func startNear(t *testing.T) (*Relay, route.Hop) {
	t.Helper()
	key, id := newIdentity(t)
	r, _, _ := startRelay(t, config.Relay{
		Common: config.Common{Identity: key, DrainTimeout: time.Second}, Listen: []config.Address{local(0)},
		Extend: config.Extend{Allow: mustCompile(t, policy.Extend, `to != ""`)},
	})
	return r, routeTo(r.Addrs()[0], id)[0]
}

// through puts a hop before a route.
func through(hop route.Hop, r route.Route) route.Route { return append(route.Route{hop}, r...) }

// awaitJoins waits until the relay has that many joins, or more if it is not 0, within
// the time that a revocation may take.
func awaitJoins(t *testing.T, r *Relay, n int) {
	t.Helper()
	watch := testenv.Start(t)
	eventually(t, "the relay's joins are what they have to be", func() bool {
		got := r.server.Counts().Joins
		return n == 0 && got == 0 || n > 0 && got >= n
	})
	if took := watch.Took(); n == 0 && took > cutTimeout {
		t.Errorf("the relay was left after %s, want within %s", took, cutTimeout)
	}
}

// An inlet leaves a route with a revoked relay in the middle: for another one where there
// is one, and else for none.
func TestInletLeavesARevokedRoute(t *testing.T) {
	t.Parallel()
	for _, another := range []bool{true, false} {
		a := startAuthority(t)
		near, hop := startNear(t)
		sys := startTrusting(t, a, func(s *setup) {
			inlet := s.inlet
			var running *Outlet
			s.before = func(out *Outlet) { running = out }
			s.inlet = func(c *config.Inlet) {
				inlet(c)
				eventually(t, "the outlet is registered", func() bool { return running.countRegistrations() > 0 })
				direct := c.Services[0].Routes[0]
				c.Services[0].Routes = []route.Route{through(hop, direct)}
				if another {
					c.Services[0].Routes = append(c.Services[0].Routes, direct)
				}
			}
		})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		awaitJoins(t, near, 1)
		a.Revoke([]identity.Identifier{near.Identifier()})
		awaitJoins(t, near, 0)
		if another {
			wantEcho(t, nc, "still here")
			if lost := sys.inletLog.lines(t, map[string]string{"msg": "path lost, streams wait for another"}); len(lost) != 0 {
				t.Errorf("the path was lost before there was another: %v", lost)
			}
			continue
		}
		eventually(t, "the inlet says why its streams wait", func() bool {
			return len(sys.inletLog.lines(t, map[string]string{"msg": "path lost, streams wait for another", "code": "identity_revoked"})) > 0
		})
		if n := near.server.Counts().Conns; n != 0 {
			t.Errorf("%d conns at the revoked relay, want none", n)
		}
	}
}

// An outlet leaves a route with a revoked relay on it, in the middle or at the end, with
// its registration and with the paths that have come by it: inlets, which may know
// nothing of it, are asked to move, and not waited for.
func TestOutletLeavesARevokedRoute(t *testing.T) {
	t.Parallel()
	for _, another := range []bool{true, false} {
		a := startAuthority(t)
		near, hop := startNear(t)
		port := testenv.Port(t)
		sys := startTrusting(t, a, func(s *setup) {
			outlet, inlet := s.outlet, s.inlet
			var running *Outlet
			s.before = func(out *Outlet) { running = out }
			s.outlet = func(c *config.Outlet) {
				outlet(c)
				c.Relays[0] = through(hop, c.Relays[0])
				c.Listen = []config.Address{local(port)}
			}
			s.inlet = func(c *config.Inlet) {
				inlet(c)
				eventually(t, "the outlet is registered", func() bool { return running.countRegistrations() > 0 })
				if another {
					c.Services[0].Routes = append(c.Services[0].Routes, route.Route{{Host: "127.0.0.1", Port: uint16(port), Identifier: c.Services[0].Outlet}})
				}
			}
		})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		eventually(t, "the path leads through the relay", func() bool {
			for _, l := range sys.inlet.allLinks() {
				for _, h := range l.sessions() {
					if r, _, err := h.session.Path(); err == nil && r == 0 {
						return true
					}
				}
			}
			return false
		})
		awaitJoins(t, near, 2)
		a.Revoke([]identity.Identifier{near.Identifier()})
		awaitJoins(t, near, 0)
		if another {
			wantEcho(t, nc, "still here")
		}
		eventually(t, "the outlet is registered no more", func() bool { return sys.outlet.countRegistrations() == 0 })
	}
}

// A member's way to its authority is left like any other.
func TestMemberLeavesARevokedRoute(t *testing.T) {
	t.Parallel()
	for _, another := range []bool{true, false} {
		a := startAuthority(t)
		near, hop := startNear(t)
		key, _ := newIdentity(t)
		trust := a.ticket(credential.Attributes{"role": "relay"})
		direct := trust.TicketRoutes[0]
		trust.TicketRoutes = []route.Route{through(hop, direct)}
		if another {
			trust.TicketRoutes = append(trust.TicketRoutes, direct)
		}
		r, log, _ := startRelay(t, config.Relay{
			Common: config.Common{Identity: key, State: t.TempDir(), DrainTimeout: time.Second}, Trust: trust,
			Listen: []config.Address{local(0)}, Connect: mustCompile(t, policy.Connect, `peer.attr.role == "inlet"`),
		})
		eventually(t, "the relay is enrolled", func() bool { return r.Status().Credential != nil && r.Status().Credential.Connected })
		awaitJoins(t, near, 1)
		a.Revoke([]identity.Identifier{near.Identifier()})
		awaitJoins(t, near, 0)
		if !another {
			continue
		}
		a.Revoke([]identity.Identifier{id(9)})
		eventually(t, "the next list comes over the other route", func() bool { return r.Status().Credential.RevocationList == 2 })
		if n := len(log.lines(t, map[string]string{"msg": "enrolled"})); n != 1 {
			t.Errorf("enrolled %d times", n)
		}
	}
}

// A member gives up its channel to an authority that has revoked itself.
func TestMemberLeavesARevokedAuthority(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	sys := startTrusting(t, a)
	wantEcho(t, sys.dial(t), "hello")
	a.Revoke([]identity.Identifier{a.Identifier()})
	for name, m := range map[string]*membership{"relay": sys.relay.member, "outlet": sys.outlet.member, "inlet": sys.inlet.member} {
		eventually(t, "the "+name+" has no stream to it", func() bool {
			st := m.status()
			return !st.Connected && strings.Contains(st.LastError, "it has revoked the identifier")
		})
	}
}
