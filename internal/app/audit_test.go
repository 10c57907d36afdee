package app

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// An auditFile is where a process's audit log goes.
type auditFile string

// lines returns the lines that have all of the wanted members. The last one may
// be on its way.
func (f auditFile) lines(t *testing.T, want map[string]string) (found []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(string(f))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		ok := true
		for k, v := range want {
			ok = ok && m[k] == v
		}
		if ok {
			found = append(found, m)
		}
	}
	return found
}

// one waits for the one line that has all of the wanted members.
func (f auditFile) one(t *testing.T, want map[string]string) map[string]any {
	t.Helper()
	var found []map[string]any
	eventually(t, "a line with "+strings.Join(sortedPairs(want), " "), func() bool {
		found = f.lines(t, want)
		return len(found) > 0
	})
	if len(found) > 1 {
		t.Errorf("%d lines with %v, want 1: %v", len(found), want, found)
	}
	return found[0]
}

func sortedPairs(m map[string]string) (list []string) {
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	return list
}

// An audited system is one whose processes have audit logs.
type audited struct {
	*system
	relayAudit, outletAudit, inletAudit auditFile
}

// startAudited starts a system with audit logs, which must in the end have an
// end for each decision that allows, and no other.
func startAudited(t *testing.T, s setup) *audited {
	t.Helper()
	dir := t.TempDir()
	a := &audited{
		relayAudit: auditFile(filepath.Join(dir, "relay")), outletAudit: auditFile(filepath.Join(dir, "outlet")), inletAudit: auditFile(filepath.Join(dir, "inlet")),
	}
	relay, outlet, inlet := s.relay, s.outlet, s.inlet
	s.relay = func(c *config.Relay) {
		c.Audit = string(a.relayAudit)
		if relay != nil {
			relay(c)
		}
	}
	s.outlet = func(c *config.Outlet) {
		c.Audit = string(a.outletAudit)
		if outlet != nil {
			outlet(c)
		}
	}
	s.inlet = func(c *config.Inlet) {
		c.Audit = string(a.inletAudit)
		if inlet != nil {
			inlet(c)
		}
	}
	a.system = startSystem(t, s)
	return a
}

// wantPairs stops the processes and wants one end for each grant.
func (a *audited) wantPairs(t *testing.T) {
	t.Helper()
	a.stopInlet()
	a.stopOutlet()
	a.stopRelay()
	for _, f := range []auditFile{a.relayAudit, a.outletAudit, a.inletAudit} {
		open := map[any]bool{}
		for i, m := range f.lines(t, nil) {
			if m["seq"] != float64(i+1) {
				t.Errorf("%s: line %d has the number %v", f, i+1, m["seq"])
			}
			switch id := m["id"]; {
			case m["decision"] == "allowed" && id != nil && !open[id]:
				open[id] = true
			case m["event"] == "end" && open[id]:
				delete(open, id)
			case m["decision"] != "denied":
				t.Errorf("%s: a line out of place: %v", f, m)
			}
		}
		if len(open) > 0 {
			t.Errorf("%s: no end of %v", f, open)
		}
	}
}

// What is allowed: a decision and an end at each of the three, that name the same
// stream, with its bytes.
func TestAuditOfAStream(t *testing.T) {
	t.Parallel()
	a := startAudited(t, setup{})
	nc := a.dial(t)
	wantEcho(t, nc, "hello")
	client := nc.LocalAddr().String()
	_ = nc.CloseWrite()
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	inletID, outletID := a.inlet.Identifier().String(), a.outlet.Identifier().String()
	var ids []any
	for f, peer := range map[auditFile]string{a.inletAudit: outletID, a.outletAudit: inletID} {
		m := f.one(t, map[string]string{"event": "decision", "action": "open", "decision": "allowed", "peer": peer, "service": "echo", "client": client, "code": "ok"})
		if c, ok := m["credentials"].([]any); !ok || len(c) > 0 {
			t.Errorf("credentials %v, want none", m["credentials"])
		}
		id, _ := m["id"].(string)
		end := f.one(t, map[string]string{"event": "end", "action": "open", "id": id, "peer": peer, "service": "echo", "client": client, "code": "ok"})
		if end["to_service"] != 5. || end["to_client"] != 5. || end["duration"].(float64) <= 0 {
			t.Errorf("end %v, want 5 bytes each way and a duration", end)
		}
		ch := f.one(t, map[string]string{"event": "decision", "action": "channel", "decision": "allowed", "peer": peer})
		if !strings.HasPrefix(id, ch["id"].(string)+"/") {
			t.Errorf("stream %s is not one of the channel %v", id, ch["id"])
		}
		ids = append(ids, id)
	}
	if ids[0] != ids[1] {
		t.Errorf("the stream is %v at one end and %v at the other", ids[0], ids[1])
	}
	if m := a.outletAudit.one(t, map[string]string{"event": "decision", "action": "open"}); m["target"] != a.outlet.cfg.Services[0].Target.String() || m["component"] != "outlet" || m["identifier"] != outletID || m["instance"] != a.outlet.local.Instance().String() {
		t.Errorf("outlet's line %v, want its target and itself", m)
	}
	a.relayAudit.one(t, map[string]string{"action": "register", "decision": "allowed", "peer": outletID})
	// The inlet may have asked for the outlet before that was registered.
	connects := a.relayAudit.lines(t, map[string]string{"action": "connect", "decision": "allowed", "peer": inletID, "target": outletID})
	a.wantPairs(t)
	last, _ := connects[len(connects)-1]["id"].(string)
	if m := a.relayAudit.one(t, map[string]string{"action": "connect", "event": "end", "id": last}); m["to_service"].(float64) < 5 || m["to_client"].(float64) < 5 {
		t.Errorf("relay's end %v, want the bytes that it moved", m)
	}
	a.relayAudit.one(t, map[string]string{"action": "register", "event": "end", "peer": outletID})
}

// What is denied, and what was allowed and failed, each with its code and the
// policy's explanation.
func TestAuditOfRefusals(t *testing.T) {
	t.Parallel()
	_, other := newIdentity(t)
	expr := func(t *testing.T) *policy.Policy { return mustCompile(t, policy.Open, `peer.attr.role == "api"`) }
	for _, tt := range []struct {
		name          string
		setup         setup
		inlet, outlet map[string]string // each nil for none
		relay         map[string]string
		why           string // in the outlet's reason, or the relay's
	}{
		{
			"denied",
			setup{outlet: func(c *config.Outlet) { c.Services[0].Allow = expr(t) }},
			map[string]string{"event": "end", "code": "stream_denied"},
			map[string]string{"decision": "denied", "code": "stream_denied", "service": "echo"},
			nil, `no attribute "role"`,
		},
		{
			"unknown",
			setup{service: "other"},
			map[string]string{"event": "end", "code": "service_unknown"},
			map[string]string{"decision": "denied", "code": "service_unknown", "service": "other"},
			nil, "",
		},
		{
			"target",
			setup{target: local(testenv.Port(t))},
			map[string]string{"event": "end", "code": "target_refused"},
			map[string]string{"event": "end", "code": "target_refused"},
			nil, "connection refused",
		},
		{
			"connect",
			setup{relay: func(c *config.Relay) { c.Connect = policy.List(other) }},
			map[string]string{"decision": "denied", "code": "connect_denied"},
			nil,
			map[string]string{"decision": "denied", "action": "connect", "code": "connect_denied"},
			"is not on the list",
		},
		{
			"register",
			setup{relay: func(c *config.Relay) { c.Register = policy.List(other) }},
			map[string]string{"decision": "denied", "code": "not_registered"},
			nil,
			map[string]string{"decision": "denied", "action": "register", "code": "register_denied"},
			"is not on the list",
		},
		{
			"extend",
			setup{inlet: func(c *config.Inlet) {
				c.Services[0].Routes[0] = append(c.Services[0].Routes[0][:1:1], route.Hop{Host: "127.0.0.1", Port: 1, Identifier: other})
			}},
			map[string]string{"decision": "denied", "code": "extend_denied"},
			nil,
			map[string]string{"decision": "denied", "action": "extend", "code": "extend_denied", "target": "127.0.0.1:1"},
			"list of addresses",
		},
		{
			"not registered",
			setup{inlet: func(c *config.Inlet) { c.Services[0].Outlet = other }},
			map[string]string{"decision": "denied", "code": "not_registered"},
			nil,
			map[string]string{"event": "end", "action": "connect", "code": "not_registered", "target": other.String()},
			"",
		},
		{
			"another identity",
			setup{inlet: func(c *config.Inlet) { c.Services[0].Routes[0] = withIdentity(c.Services[0].Routes[0], other) }},
			map[string]string{"action": "handshake", "decision": "denied", "code": "wrong_identity"},
			nil, nil, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inlet := tt.setup.inlet
			tt.setup.inlet = func(c *config.Inlet) {
				c.ConnectTimeout = 200 * time.Millisecond
				c.Services[0].Routes = []route.Route{c.Services[0].Routes[0]}
				if inlet != nil {
					inlet(c)
				}
			}
			if tt.outlet != nil {
				tt.setup.inlet = inlet
			}
			a := startAudited(t, tt.setup)
			if tt.outlet == nil {
				eventually(t, "an attempt has failed, whose code is the client's", func() bool {
					return len(a.inletLog.lines(t, map[string]string{"msg": "cannot reach the outlet, trying on"})) > 0
				})
			}
			wantRefused(t, a.inlet.Addrs()[0])
			for _, want := range []struct {
				f    auditFile
				line map[string]string
				why  string
			}{{a.inletAudit, tt.inlet, ""}, {a.outletAudit, tt.outlet, tt.why}, {a.relayAudit, tt.relay, tt.why}} {
				if want.line == nil {
					continue
				}
				eventually(t, string(want.f)+" has the line", func() bool {
					found := want.f.lines(t, want.line)
					if len(found) == 0 {
						return false
					}
					reason, _ := found[0]["reason"].(string)
					if !strings.Contains(reason, want.why) {
						t.Fatalf("line %v, want the reason to hold %q", found[0], want.why)
					}
					return true
				})
			}
			a.wantPairs(t)
		})
	}
}

// A log that cannot be opened is a fault of the settings.
func TestAuditCannotBeOpened(t *testing.T) {
	key, id := newIdentity(t)
	o, _ := newObs(t, "outlet")
	cfg := config.Outlet{
		Common: config.Common{Identity: key, Audit: t.TempDir()}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id)}},
	}
	if _, err := NewOutlet(&cfg, o); err == nil || !strings.Contains(err.Error(), "audit: ") || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("NewOutlet: %v, want a fault of audit", err)
	}
}
