package app

import (
	"path/filepath"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/relay"
)

// finds asks the system's relay as the inlet.
func finds(t *testing.T, sys *system, service string) ([]relay.Replica, error) {
	t.Helper()
	r := routeTo(sys.relay.Addrs()[0], sys.relay.Identifier())
	return sys.inlet.newDialer().Find(t.Context(), r, service)
}

// A relay finds the outlets whose credentials say, now, that they offer a service.
func TestRelayFinds(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	log := filepath.Join(t.TempDir(), "audit")
	sys := startTrusting(t, a, func(s *setup) {
		outlet, relay := s.outlet, s.relay
		s.outlet = func(c *config.Outlet) {
			outlet(c)
			c.Trust = a.ticket(credential.Attributes{"role": "outlet", "service": "orders-db,stock-db"})
		}
		s.relay = func(c *config.Relay) { relay(c); c.Audit = log }
	})
	wantEcho(t, sys.dial(t), "all are there")
	for _, service := range []string{"orders-db", "stock-db"} {
		got, err := finds(t, sys, service)
		if err != nil || len(got) != 1 || got[0].Outlet != sys.outlet.Identifier() || got[0].Instance != sys.outlet.local.Instance() || got[0].Draining {
			t.Errorf("%s: got %v, %v; want the outlet", service, got, err)
		}
	}
	for _, service := range []string{"echo", "orders", "orders-db,stock-db"} {
		if got, err := finds(t, sys, service); err != nil || got != nil {
			t.Errorf("%s: got %v, %v; want nothing", service, got, err)
		}
	}
	eventually(t, "five finds are counted", func() bool { return metric(t, sys.relay.obs, "culvert_relay_finds_total") == 5 })
	decision := auditFile(log).one(t, map[string]string{"action": "find", "event": "decision", "service": "orders-db", "code": "ok", "decision": "allowed"})
	end := auditFile(log).one(t, map[string]string{"action": "find", "event": "end", "service": "orders-db", "code": "ok"})
	if decision["id"] != end["id"] || decision["peer"] != sys.inlet.Identifier().String() {
		t.Errorf("recorded %v and %v, want one decision about the inlet and its end", decision, end)
	}
	a.Revoke(nil, a.Issued(sys.outlet.Identifier()))
	eventually(t, "the outlet is found no more", func() bool {
		got, err := finds(t, sys, "orders-db")
		return err == nil && got == nil
	})
}

// Whom nobody has to know of is not told, and one that may connect to nothing hears
// why: the credential.
func TestRelayFindsForWhomItConnects(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	sys := startTrusting(t, a, func(s *setup) {
		outlet := s.outlet
		s.outlet = func(c *config.Outlet) {
			outlet(c)
			c.Trust = a.ticket(credential.Attributes{"role": "outlet", "service": "orders-db"})
		}
	})
	wantEcho(t, sys.dial(t), "all are there")
	a.Revoke(nil, a.Issued(sys.inlet.Identifier()))
	eventually(t, "the inlet is refused, with the reason", func() bool {
		_, err := finds(t, sys, "orders-db")
		return deniedCode(err) == code.CredentialRevoked
	})
}

// A relay without an authority says what to set.
func TestRelayFindsNothingUntrusting(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	if _, err := finds(t, sys, "orders-db"); label(err, code.OK) != "find_denied" {
		t.Errorf("got %v, want find_denied", err)
	}
}
