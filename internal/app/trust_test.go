package app

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// cutTimeout is within what time whoever is revoked has to be gone.
const cutTimeout = 5 * time.Second

// startTrusting starts a system in which nobody is listed: everybody enrols by a
// ticket, and may do what its role says.
func startTrusting(t *testing.T, a *testAuthority, change ...func(*setup)) *system {
	t.Helper()
	s := setup{
		relay: func(c *config.Relay) {
			c.State, c.Trust = t.TempDir(), a.ticket(credential.Attributes{"role": "relay"})
			c.Register = mustCompile(t, policy.Register, `peer.attr.role == "outlet"`)
			c.Connect = mustCompile(t, policy.Connect, `peer.attr.role == "inlet"`)
		},
		outlet: func(c *config.Outlet) {
			c.State, c.Trust = t.TempDir(), a.ticket(credential.Attributes{"role": "outlet"})
			c.Services[0].Allow = mustCompile(t, policy.Open, `peer.attr.role == "inlet"`)
		},
		inlet: func(c *config.Inlet) {
			c.State, c.Trust = t.TempDir(), a.ticket(credential.Attributes{"role": "inlet"})
		},
	}
	for _, f := range change {
		f(&s)
	}
	return startSystem(t, s)
}

// Attributes alone let a stream through a relay and an outlet, after nothing but a
// ticket each; and a renewal reaches everybody without a break.
func TestAttributesLetIn(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	a.SetLifetime(4 * time.Second)
	sys := startTrusting(t, a)
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	first := a.Issued(sys.inlet.Identifier())
	eventually(t, "all three have renewed twice", func() bool {
		return a.Count(authoritytest.Is[credential.Renew]) >= 6
	})
	wantEcho(t, nc, "still here")
	eventually(t, "the outlet has been shown the inlet's new credential", func() bool {
		for _, ch := range sys.outlet.channels.list() {
			j := sys.outlet.trust.judge(ch.session.Peer())
			if len(j.credentials) == 1 && j.credentials[0].Serial != first.Serial {
				return true
			}
		}
		return false
	})
	wantEcho(t, sys.dial(t), "and new ones")
	if got := metric(t, sys.relay.obs, "culvert_channel_credential_lifetime_seconds"); got != 4 {
		t.Errorf("a credential for %v s, want 4", got)
	}
	if lost := sys.inletLog.lines(t, map[string]string{"msg": "path lost, streams wait for another"}); len(lost) != 0 {
		t.Errorf("paths were lost: %v", lost)
	}
}

// Whoever is revoked is cut in time, everywhere, with a code, and not let in again.
func TestRevocationCuts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		revoke func(a *testAuthority, sys *system)
		code   code.Code
	}{
		{"identifier of the inlet", func(a *testAuthority, sys *system) {
			a.Revoke([]identity.Identifier{sys.inlet.Identifier()})
		}, code.IdentityRevoked},
		{"credential of the inlet", func(a *testAuthority, sys *system) {
			c := a.Issued(sys.inlet.Identifier())
			a.Forget(sys.inlet.Identifier()) // it is given no other
			a.Revoke(nil, c)
		}, code.CredentialRevoked},
		{"identifier of the outlet", func(a *testAuthority, sys *system) {
			a.Revoke([]identity.Identifier{sys.outlet.Identifier()})
		}, code.IdentityRevoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := startAuthority(t)
			sys := startTrusting(t, a)
			nc := sys.dial(t)
			wantEcho(t, nc, "hello")
			sys.inlet.connectTimeout.Store(int64(2 * time.Second)) // there will be no channel any more
			tt.revoke(a, sys)
			cutWithin(t, nc, cutTimeout)
			cutWithin(t, sys.dial(t), cutTimeout)
			eventually(t, "somebody's log names the code", func() bool {
				for _, log := range []*logBuffer{sys.outletLog, sys.inletLog, sys.relayLog} {
					if len(log.lines(t, map[string]string{"code": tt.code.String()})) > 0 {
						return true
					}
				}
				return false
			})
		})
	}
}

// Whoever's own credential or identity is revoked says so itself: in the log, in
// /readyz and in the status.
func TestOwnRevocationIsSaid(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	sys := startTrusting(t, a)
	wantEcho(t, sys.dial(t), "hello")
	if err := sys.inlet.member.ready(); err != nil {
		t.Fatalf("before: %v", err)
	}
	said := func(code code.Code) bool {
		err, st := sys.inlet.member.ready(), sys.inlet.Status().Credential
		return err != nil && strings.Contains(err.Error(), "revoked") && st != nil && strings.Contains(st.Revoked, "revoked") &&
			len(sys.inletLog.lines(t, map[string]string{"level": "error", "code": code.String(), "authority": a.Identifier().String()})) == 1
	}
	a.Revoke(nil, a.Issued(sys.inlet.Identifier()))
	eventually(t, "that its credential is revoked is said", func() bool { return said(code.CredentialRevoked) })
	a.Revoke([]identity.Identifier{sys.inlet.Identifier()})
	eventually(t, "that its identity is revoked is said", func() bool { return said(code.IdentityRevoked) })
}

// A stream that may not be any more ends with the reason; one that a list allows,
// and so the channel, go on.
func TestOnlyWhatIsDeniedIsCut(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	target := serveTCP(t, echo)
	var listed config.InletService
	sys := startTrusting(t, a, func(s *setup) {
		relay, outlet, inlet := s.relay, s.outlet, s.inlet
		s.relay = func(c *config.Relay) { relay(c); c.Connect = mustCompile(t, policy.Connect, "true") }
		s.outlet = func(c *config.Outlet) {
			c.Services = append(c.Services, config.OutletService{Name: "listed", Target: target, Allow: c.Services[0].Allow})
			outlet(c)
		}
		s.inlet = func(c *config.Inlet) {
			inlet(c)
			listed = c.Services[0]
			listed.Service = "listed"
			c.Services = append(c.Services, listed)
		}
	})
	byRole, byList := sys.dial(t), dialTCP(t, sys.inlet.Addrs()[1])
	wantEcho(t, byRole, "hello")
	wantEcho(t, byList, "hello")
	a.Revoke(nil, a.Issued(sys.inlet.Identifier()))
	cutWithin(t, byRole, cutTimeout)
	eventually(t, "the outlet says which stream it has cut", func() bool {
		lines := sys.outletLog.lines(t, map[string]string{"msg": "stream is cut", "service": "echo", "code": "credential_revoked"})
		return len(lines) == 1
	})
	wantEcho(t, byList, "still here")
}

// A credential that ends and is not renewed cuts, by the outlet's clock and the
// skew that it grants.
func TestExpiryCuts(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	var sys *system
	var nc *net.TCPConn
	lifetime := 3 * time.Second
	for ; ; lifetime *= 2 { // on a machine too slow for that
		a.SetLifetime(lifetime)
		watch := testenv.Start(t)
		sys = startExpiring(t, a)
		if nc = sys.dial(t); echoes(nc) {
			break
		}
		if lost := watch.Lost(); lost < lifetime/4 || lifetime > patience/2 {
			t.Fatalf("no stream with credentials for %s, on a machine that has lost %s", lifetime, lost)
		}
		sys.stopInlet()
	}
	// The authority forgets the inlet: what it has ends.
	a.Forget(sys.inlet.Identifier())
	cutWithin(t, nc, lifetime+cutTimeout)
	eventually(t, "the outlet says why", func() bool {
		return len(sys.outletLog.lines(t, map[string]string{"msg": "stream is cut", "code": "credential_expired"})) > 0
	})
	eventually(t, "the inlet's own log says that its credential has ended", func() bool {
		return strings.Contains(sys.inletLog.text(), "credential has ended and is not renewed")
	})
}

// startExpiring starts a system whose outlet takes no credential that has ended, by no
// clock's skew.
func startExpiring(t *testing.T, a *testAuthority) *system {
	t.Helper()
	return startTrusting(t, a, func(s *setup) {
		relay := s.relay
		s.relay = func(c *config.Relay) { relay(c); c.Connect = mustCompile(t, policy.Connect, "true") }
		s.before = func(out *Outlet) {
			// Nobody's clock is off here, and nobody has five minutes.
			strict, err := credential.NewVerifier(credential.Config{Authorities: []identity.Identifier{a.Identifier()}, Skew: time.Nanosecond})
			if err != nil {
				t.Fatal(err)
			}
			out.trust.verifier = strict
		}
	})
}

// A ticket that is refused ends the process with the reason; one that is used
// does not matter at the second start.
func TestTicketAtStart(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	key, id := newIdentity(t)
	cfg := config.Relay{
		Common: config.Common{Identity: key, State: t.TempDir(), DrainTimeout: time.Second}, Trust: a.ticket(nil),
		Listen: []config.Address{local(0)}, Connect: policy.List(id),
	}
	r, _, stop := startRelay(t, cfg)
	eventually(t, "it is enrolled", func() bool { return r.member.member.Bundle() != nil })
	stop()
	r, _, stop = startRelay(t, cfg)
	if r.member.member.Bundle() == nil {
		t.Error("the second start has no credential")
	}
	stop()

	cfg.Identity, _ = newIdentity(t)
	o, _ := newObs(t, "relay")
	again, err := NewRelay(&cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = again.Run(ctx)
	var refused *member.RefusedError
	if !errors.As(err, &refused) || refused.Code != code.TicketRefused {
		t.Errorf("another identity with the used ticket: Run = %v, want %s", err, code.TicketRefused)
	}
}

// What is wrong with a credential is told to the peer that shows it, and the log.
func TestDenialNamesTheCredential(t *testing.T) {
	t.Parallel()
	a, stranger := startAuthority(t), startAuthority(t)
	sys := startTrusting(t, a, func(s *setup) {
		relay := s.relay
		s.relay = func(c *config.Relay) { relay(c); c.Connect = mustCompile(t, policy.Connect, "true") }
		s.inlet = func(c *config.Inlet) {
			c.State, c.Trust = t.TempDir(), stranger.ticket(credential.Attributes{"role": "inlet"})
		}
	})
	wantRefused(t, sys.inlet.Addrs()[0])
	for name, log := range map[string]*logBuffer{"outlet": sys.outletLog, "inlet": sys.inletLog} {
		eventually(t, "the "+name+" says why", func() bool {
			lines := log.lines(t, map[string]string{"msg": "stream refused", "code": "untrusted_authority"})
			return len(lines) > 0 && strings.Contains(lines[0]["reason"].(string), "it is not trusted here")
		})
	}
}

// While there is no authority to enrol at, the log, /readyz and the status say so.
func TestNotEnrolledYet(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	sys := startTrusting(t, a, func(s *setup) {
		inlet := s.inlet
		s.inlet = func(c *config.Inlet) {
			inlet(c)
			c.ConnectTimeout = 300 * time.Millisecond
			c.TicketRoutes = []route.Route{{{Host: "127.0.0.1", Port: uint16(testenv.Port(t)), Identifier: a.Identifier()}}}
		}
	})
	wantRefused(t, sys.inlet.Addrs()[0])
	eventually(t, "the log says why there is no stream", func() bool {
		lines := sys.inletLog.lines(t, map[string]string{"msg": "stream refused"})
		return len(lines) > 0 && strings.Contains(lines[0]["reason"].(string), "not enrolled: ")
	})
	eventually(t, "the inlet's status says that it has none, and why", func() bool {
		st := sys.inlet.Status().Credential
		if st == nil || st.Serial != "" {
			t.Fatalf("status: %+v", st)
		}
		return st.LastError != ""
	})
	eventually(t, "the outlet, which has another way, is enrolled", func() bool {
		st := sys.outlet.Status().Credential
		return st != nil && st.Serial != "" && st.Attributes["role"] == "outlet" && st.Connected
	})
}

// A token's file is read whole, in bounds, and an error shows none of it.
func TestReadToken(t *testing.T) {
	folder := t.TempDir()
	for _, tt := range []struct {
		name string
		n    int
		want string
	}{{"empty", 0, "has 0 bytes"}, {"one", 1, ""}, {"longest", credential.MaxToken, ""}, {"too long", credential.MaxToken + 1, "want a token of 1 to"}} {
		file := filepath.Join(folder, "token")
		if err := os.WriteFile(file, bytes.Repeat([]byte("x"), tt.n), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readToken(file)
		if tt.want == "" && (err != nil || got.Len() != tt.n) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "xx")) {
			t.Errorf("%s: got %d bytes, %v, want %q", tt.name, got.Len(), err, tt.want)
		}
	}
	if _, err := readToken(filepath.Join(folder, "missing")); err == nil {
		t.Error("a missing file is no error")
	}
}

// The audit logs of an outlet and a relay name the credentials that counted for a
// decision.
func TestAuditNamesCredentials(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	folder := t.TempDir()
	sys := startTrusting(t, a, func(s *setup) {
		relay, outlet := s.relay, s.outlet
		s.relay = func(c *config.Relay) { relay(c); c.Audit = filepath.Join(folder, "relay") }
		s.outlet = func(c *config.Outlet) { outlet(c); c.Audit = filepath.Join(folder, "outlet") }
	})
	wantEcho(t, sys.dial(t), "hello")
	for process, action := range map[string]string{"outlet": "open", "relay": "connect"} {
		eventually(t, "the "+process+"'s log names the inlet's credential", func() bool {
			for _, line := range auditFile(filepath.Join(folder, process)).lines(t, map[string]string{"action": action, "event": "decision"}) {
				serials, _ := line["credentials"].([]any)
				if len(serials) == 1 && serials[0] == a.Issued(sys.inlet.Identifier()).Serial.String() {
					return true
				}
			}
			return false
		})
	}
}

// A handshake that is refused for what the peer has proven to be names it in the
// audit log, and the credentials that it has shown: at a relay and at an outlet.
func TestAuditNamesWhoIsTurnedAway(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	folder := t.TempDir()
	sys := startTrusting(t, a, func(s *setup) {
		relay, outlet := s.relay, s.outlet
		s.relay = func(c *config.Relay) { relay(c); c.Audit = filepath.Join(folder, "relay") }
		s.outlet = func(c *config.Outlet) {
			outlet(c)
			c.Audit, c.Listen = filepath.Join(folder, "outlet"), []config.Address{local(0)}
		}
		inlet := s.inlet
		s.inlet = func(c *config.Inlet) { inlet(c); c.ConnectTimeout = 300 * time.Millisecond }
	})
	eventually(t, "there is a channel", func() bool { ok, _ := sys.inlet.obs.Ready.Check(); return ok })
	wantEcho(t, sys.dial(t), "hello")
	id, serial := sys.inlet.Identifier(), a.Issued(sys.inlet.Identifier()).Serial.String()
	a.Revoke([]identity.Identifier{id})
	eventually(t, "the outlet knows", func() bool { return sys.outlet.trust.verifier.Revoked(id) != nil })
	// The inlet calls the outlet itself, too, which has not heard of it from a relay.
	nc, err := net.Dial("tcp", sys.outlet.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := channel.Initiate(t.Context(), nc, sys.inlet.local, sys.outlet.Identifier(), channel.PurposeChannel, nil, channel.Options{}); err == nil {
		defer c.Close()
	}
	for _, process := range []string{"relay", "outlet"} {
		eventually(t, "the "+process+"'s log names the inlet and its credential", func() bool {
			for _, line := range auditFile(filepath.Join(folder, process)).lines(t, map[string]string{"action": "handshake", "code": "identity_revoked"}) {
				serials, _ := line["credentials"].([]any)
				if line["peer"] == id.String() && line["peer_instance"] == sys.inlet.local.Instance().String() && len(serials) == 1 && serials[0] == serial {
					return true
				}
			}
			return false
		})
	}
}
