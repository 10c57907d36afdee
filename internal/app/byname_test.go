package app

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// named is a server that says a letter to each client, and then echoes.
func named(letter string) func(*net.TCPConn) {
	return func(nc *net.TCPConn) {
		if _, err := io.WriteString(nc, letter); err == nil {
			echo(nc)
		}
	}
}

// A byName is a system whose inlet takes the service echo from any outlet that
// proves to offer it.
type byName struct {
	*system
	t   *testing.T
	way route.Route
}

// startByName starts it with one outlet, "a". The relay trusts other authorities, too.
func startByName(t *testing.T, a *testAuthority, others ...identity.Identifier) *byName {
	t.Helper()
	n := &byName{t: t}
	n.system = startTrusting(t, a, func(s *setup) {
		relay, inlet := s.relay, s.inlet
		s.relay = func(c *config.Relay) {
			relay(c)
			c.Authorities = others
			c.Register = mustCompile(t, policy.Register, `peer.attr.role == "outlet"`)
		}
		s.outlet = func(c *config.Outlet) {
			n.way = c.Relays[0]
			n.outletConfig(c, a, "a", credential.Attributes{"role": "outlet", "service": "other,echo"})
		}
		s.inlet = func(c *config.Inlet) {
			inlet(c)
			c.Services[0].Outlet = identity.Identifier{}
			c.Audit = filepath.Join(t.TempDir(), "audit")
		}
	})
	return n
}

func (n *byName) outletConfig(c *config.Outlet, a *testAuthority, letter string, attributes credential.Attributes) {
	c.State, c.Trust = n.t.TempDir(), a.ticket(attributes)
	c.Services = []config.OutletService{{Name: "echo", Target: serveTCP(n.t, named(letter)), Allow: mustCompile(n.t, policy.Open, `true`)}}
}

// outlet starts another one; identity "" is a new one.
func (n *byName) start(a *testAuthority, identity, letter string, attributes credential.Attributes) (*Outlet, func()) {
	n.t.Helper()
	if identity == "" {
		identity, _ = newIdentity(n.t)
	}
	c := config.Outlet{Common: config.Common{Identity: identity, DrainTimeout: time.Second}, Relays: []route.Route{n.way}}
	n.outletConfig(&c, a, letter, attributes)
	out, _, stop := startOutlet(n.t, c)
	return out, stop
}

// who opens a stream and returns it with the letter of whom it goes to.
func (n *byName) who() (*net.TCPConn, string) {
	n.t.Helper()
	nc := n.dial(n.t)
	letter := make([]byte, 1)
	if _, err := io.ReadFull(nc, letter); err != nil {
		n.t.Fatal(err)
	}
	return nc, string(letter)
}

// all waits until new streams go to all of these, and to nobody else meanwhile.
func (n *byName) all(letters string) {
	n.t.Helper()
	eventually(n.t, "streams go to all of "+letters, func() bool {
		n.inlet.wanted()[0].(*balancer).discovery.hurry() // not in ten seconds
		seen := map[string]bool{}
		var ncs []*net.TCPConn
		for range 2 * len(letters) {
			nc, letter := n.who()
			ncs = append(ncs, nc)
			seen[letter] = true
			if !strings.Contains(letters, letter) {
				n.t.Logf("a stream to %s, while %s are wanted", letter, letters)
			}
		}
		for _, nc := range ncs {
			_ = nc.Close()
		}
		for letter := range seen {
			if !strings.Contains(letters, letter) {
				return false
			}
		}
		return len(seen) == len(letters)
	})
}

// Streams go to all outlets that prove to offer the service, and to none that does
// not: not to one with another authority's word for it, which the relay believes,
// nor to one whose credential says nothing of it.
func TestServiceByName(t *testing.T) {
	t.Parallel()
	a, stranger := startAuthority(t), startAuthority(t)
	n := startByName(t, a, stranger.Identifier())
	b, _ := n.start(a, "", "b", credential.Attributes{"role": "outlet", "service": "echo"})
	impostor, _ := n.start(stranger, "", "x", credential.Attributes{"role": "outlet", "service": "echo"})
	other, _ := n.start(a, "", "y", credential.Attributes{"role": "outlet", "service": "other"})
	for _, out := range []*Outlet{b, impostor, other} {
		eventually(t, "all are registered", func() bool { return out.countRegistrations() == 1 })
	}
	n.all("ab")
	eventually(t, "the impostor is left alone, and why", func() bool {
		for _, r := range n.inlet.Status().Services[0].Replicas.List {
			if r.Outlet == impostor.Identifier().String() {
				return r.State == replicaAside && strings.Contains(r.LastError, "it is not trusted here")
			}
		}
		return false
	})
	n.all("ab")
	if got := impostor.channels.count(); got != 0 {
		t.Errorf("the impostor has %d channels", got)
	}
	st := n.inlet.Status().Services[0]
	if st.Outlet != "" || st.Replicas.Known != 3 || metric(t, n.inlet.obs, "culvert_inlet_replicas", "echo", "in_use") != 2 {
		t.Errorf("status: %+v, %+v", st, st.Replicas)
	}
	if err := n.inlet.wanted()[0].ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	nc, letter := n.who()
	chosen := map[string]*Outlet{"a": n.outlet, "b": b}[letter]
	client := nc.LocalAddr().String()
	line := auditFile(n.inlet.cfg.Audit).one(t, map[string]string{"action": "open", "event": "decision", "client": client})
	if line["peer"] != chosen.Identifier().String() || line["peer_instance"] != chosen.local.Instance().String() {
		t.Errorf("recorded %v, want %s", line, chosen.Identifier())
	}
}

// Processes of one identity are replicas of their own, and one that stops costs
// nothing but the streams that it had.
func TestServiceByNameInstances(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	n := startByName(t, a)
	out, stop := n.start(a, n.outlet.keys.path, "b", credential.Attributes{"role": "outlet", "service": "echo"})
	if out.Identifier() != n.outlet.Identifier() {
		t.Fatal("another identity")
	}
	n.all("ab")
	kept := map[string]*net.TCPConn{}
	for len(kept) < 2 {
		nc, letter := n.who()
		if kept[letter] == nil {
			kept[letter] = nc
		} else {
			defer nc.Close()
		}
	}
	stop()
	cutWithin(t, kept["b"], cutTimeout)
	wantEcho(t, kept["a"], "still here")
	for range 5 {
		nc, letter := n.who()
		if letter != "a" {
			t.Errorf("a stream to %s, which has stopped", letter)
		}
		_ = nc.Close() // or new ones would all go elsewhere
	}
	n.start(a, n.outlet.keys.path, "c", credential.Attributes{"role": "outlet", "service": "echo"})
	n.all("ac")
}

// Whoever loses the attribute is cut in time, and the others serve.
func TestServiceByNameRevoked(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	n := startByName(t, a)
	b, _ := n.start(a, "", "b", credential.Attributes{"role": "outlet", "service": "echo"})
	n.all("ab")
	kept := map[string]*net.TCPConn{}
	for len(kept) < 2 {
		nc, letter := n.who()
		if kept[letter] == nil {
			kept[letter] = nc
		} else {
			defer nc.Close()
		}
	}
	a.Revoke(nil, a.Issued(b.Identifier()))
	cutWithin(t, kept["b"], cutTimeout)
	wantEcho(t, kept["a"], "still here")
	n.all("a")
	eventually(t, "the inlet says why", func() bool {
		return len(n.inletLog.lines(t, map[string]string{"msg": "channel is cut", "code": "credential_revoked"})) > 0
	})
}

// Without an authority nobody could prove anything: also where the folder that may
// have had one has none.
func TestServiceByNameNeedsAnAuthority(t *testing.T) {
	key, _ := newIdentity(t)
	o, _ := newObs(t, "inlet")
	_, err := NewInlet(&config.Inlet{
		Common:   config.Common{Identity: key, State: t.TempDir()},
		Services: []config.InletService{{Listen: local(0), Service: "echo", Routes: []route.Route{{{Host: "h", Port: 1, Identifier: identity.Identifier{1}}}}}},
	}, o)
	var fault *config.Fault
	if !errors.As(err, &fault) || fault.Key != "services[0].outlet" || !strings.Contains(err.Error(), "authorities, or a ticket") {
		t.Errorf("NewInlet: %v, want the outlet's fault", err)
	}
}
