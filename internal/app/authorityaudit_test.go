package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Each decision of an authority is one line, which says who, what and by what, and
// holds no secret: also those of commands that work on its store.
func TestAuditOfAnAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := auditFile(filepath.Join(dir, "audit"))
	key, self := newIdentity(t)
	cfg := config.Authority{
		Common: config.Common{Identity: key, DrainTimeout: time.Millisecond, Audit: string(log)},
		Store:  filepath.Join(dir, "authority.db"), Listen: []config.Address{local(0)}, Routes: routesTo(self),
	}
	a, stop := startAuthorityOf(t, cfg)
	d := a.deciding.Load()
	ticket, info, err := d.CreateTicket(t.Context(), authority.TicketRequest{Attributes: credential.Attributes{"role": "api"}})
	if err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, a, nil)
	peer := s.as.Identifier()
	c := s.open(t)
	enrol := credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}
	c.ask(credential.Renew{})
	c.ask(credential.FetchRevocations{})
	c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: credential.NewSecret(bytes.Repeat([]byte{7}, 32))})
	issued, ok := c.ask(enrol).(credential.Issued)
	if !ok {
		t.Fatal("not enrolled")
	}
	first, _, err := credential.Inspect(issued.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	c.ask(credential.Renew{})
	c.ask(credential.EnrollKubernetes{Token: credential.NewSecret([]byte("a token that nobody is to see"))})
	if err := errors.Join(d.RevokeTicket(t.Context(), ticket.ID), d.RevokeTicket(t.Context(), ticket.ID)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is decided
		if _, err := d.Revoke(t.Context(), authority.Revocation{Identifiers: []identity.Identifier{id(9)}, Serials: []credential.Serial{first.Serial}, Reason: "lost"}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	offline, err := OpenOffline(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := offline.CreateTicket(t.Context(), authority.TicketRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := offline.Close(); err != nil {
		t.Fatal(err)
	}

	p, id9, ticketID := peer.String(), id(9).String(), info.ID.String()
	for _, want := range []map[string]string{
		{"action": "create_ticket", "decision": "allowed", "peer": "", "route": "admin", "ticket": ticketID, "id": ticketID, "code": "ok"},
		{"action": "renew", "decision": "denied", "peer": p, "code": "not_enrolled"},
		{"action": "fetch", "decision": "denied", "peer": p, "code": "not_enrolled"},
		{"action": "enroll", "decision": "denied", "peer": p, "ticket": ticketID, "code": "ticket_refused"},
		{"action": "enroll", "decision": "allowed", "peer": p, "ticket": ticketID, "serial": first.Serial.String(), "id": first.Serial.String(), "code": "ok"},
		{"action": "renew", "decision": "allowed", "peer": p, "ticket": ticketID},
		{"action": "renew", "decision": "denied", "peer": p, "code": "token_refused"},
		{"action": "revoke_ticket", "decision": "allowed", "peer": "", "ticket": ticketID, "code": "ok"},
		{"action": "revoke", "decision": "allowed", "target": id9, "reason": "lost", "code": "ok"},
		{"action": "revoke", "decision": "allowed", "target": p, "serial": first.Serial.String(), "reason": "lost"},
		{"action": "create_ticket", "route": "store", "component": "authority", "identifier": self.String()},
	} {
		log.one(t, want)
	}
	for _, action := range []string{"enroll", "renew", "create_ticket", "revoke_ticket"} {
		for _, line := range log.lines(t, map[string]string{"action": action, "decision": "allowed", "ticket": ticketID}) {
			if list, ok := line["attributes"].([]any); !ok || len(list) != 1 || list[0] != "role=api" {
				t.Errorf("%s has the attributes %v, want role=api", action, line["attributes"])
			}
		}
	}
	text, err := os.ReadFile(string(log))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := ticket.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{encoded, encoded[len(encoded)-20:], "nobody is to see", string(ticket.Secret.Reveal())} {
		if strings.Contains(string(text), secret) {
			t.Error("a secret is in the audit log")
		}
	}
}

// One peer, however much it asks, leaves room for the lines about others.
func TestQuietOfPeers(t *testing.T) {
	var q quiet
	loud := 0
	for i := range 2 * quietKinds {
		if q.warning("a", string(rune('0'+i))) == zapcore.WarnLevel {
			loud++
		}
	}
	if loud != quietEach {
		t.Errorf("%d lines about one peer, want %d", loud, quietEach)
	}
	if q.warning("b", "x") != zapcore.WarnLevel || q.warning("b", "x") != zapcore.DebugLevel {
		t.Error("want the other peer's line, once")
	}
}
