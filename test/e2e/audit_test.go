//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// audited returns the lines of a program's audit log that have the wanted
// members, from all of its files.
func audited(t *testing.T, want map[string]string, files ...string) (found []map[string]any) {
	t.Helper()
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				break // it is on its way
			}
			var m map[string]any
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatalf("%s: line %q: %v", file, line, err)
			}
			ok := true
			for k, v := range want {
				ok = ok && m[k] == v
			}
			if ok {
				found = append(found, m)
			}
		}
	}
	return found
}

// wantAudited waits for one such line.
func wantAudited(t *testing.T, want map[string]string, files ...string) map[string]any {
	t.Helper()
	var found []map[string]any
	if !eventually(patience, func() bool { found = audited(t, want, files...); return len(found) == 1 }) {
		t.Fatalf("%v: %d lines with %v, want 1", files, len(found), want)
	}
	return found[0]
}

// A session that is allowed and one that is denied, through a relay, as all three
// programs write them down; a log that is renamed under way goes on in another
// file, and one whose disk is full keeps an outlet from allowing anything.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := func(name string) string { return filepath.Join(w.dir, name+".audit") }
	extra := func(name string) string { return "audit: " + name + ".audit\naudit_failure: deny\n" } // beside the settings
	target := serveTCP(t, echo)
	relay := w.relay("relay", relayConfig{Register: []string{"outlet", "full"}, Connect: []string{"inlet"}, Extra: extra("relay")})
	outlet := w.outlet("outlet", outletConfig{
		Relays:   []string{w.hop("relay")},
		Services: []service{{"good", target, []string{"inlet"}}, {"for-others", target, []string{"somebody-else"}}}, Extra: extra("outlet"),
	})
	full := w.startOutlet("full", outletConfig{
		Relays: []string{w.hop("relay")}, Services: []service{{"good", target, []string{"inlet"}}}, Extra: "audit: /dev/full\naudit_failure: deny\n",
	})
	inlet := w.startInlet("inlet", inletConfig{Services: []local{
		{"good", "outlet", []string{w.hop("relay")}}, {"for-others", "outlet", []string{w.hop("relay")}},
	}, Extra: extra("inlet")}).wantReady()
	other := w.startInlet("inlet2", inletConfig{Identity: "inlet", Services: []local{{"good", "full", []string{w.hop("relay")}}}})

	c := dial(t, w.at("inlet", "good"))
	exchange(t, c, "select 1")
	if err := os.Rename(file("outlet"), file("outlet")+".1"); err != nil {
		t.Fatal(err)
	}
	outlet.signal(syscall.SIGHUP)
	if !eventually(patience, func() bool { _, err := os.Stat(file("outlet")); return err == nil }) {
		t.Fatal("SIGHUP makes no new audit log")
	}
	exchange(t, c, "select 2")
	client := c.LocalAddr().String()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantEOF(t, c)
	wantNewReset(t, w.at("inlet", "for-others"), patience)
	wantNewReset(t, w.at("inlet2", "good"), patience)
	other.wantLog(t, patience, "stream refused", "audit_failed")
	full.wantNotReady(patience, "audit", "no space left on device")

	outlets := []string{file("outlet") + ".1", file("outlet")}
	for peer, files := range map[string][]string{w.id("outlet"): {file("inlet")}, w.id("inlet"): outlets} {
		m := wantAudited(t, map[string]string{"event": "decision", "decision": "allowed", "action": "open", "service": "good", "peer": peer, "client": client}, files...)
		id, _ := m["id"].(string)
		end := wantAudited(t, map[string]string{"event": "end", "id": id, "code": "ok"}, files...)
		if end["to_service"] != float64(len("select 1")+len("select 2")) || end["to_client"] != end["to_service"] {
			t.Errorf("%v: %v, want the bytes of two questions each way", files, end)
		}
	}
	denied := wantAudited(t, map[string]string{"event": "decision", "decision": "denied", "action": "open", "service": "for-others", "code": "stream_denied", "peer": w.id("inlet")}, outlets...)
	if reason, _ := denied["reason"].(string); !holdsAll(reason, []string{"not on the list"}) {
		t.Errorf("%v, want what the policy says", denied)
	}
	wantAudited(t, map[string]string{"event": "end", "service": "for-others", "code": "stream_denied"}, file("inlet"))
	wantAudited(t, map[string]string{"action": "register", "decision": "allowed", "peer": w.id("outlet")}, file("relay"))
	for _, n := range []*node{inlet, other, outlet, full, relay} {
		n.stop()
	}
	joins := audited(t, map[string]string{"action": "connect", "decision": "allowed", "peer": w.id("inlet")}, file("relay"))
	ends := audited(t, map[string]string{"action": "connect", "event": "end", "peer": w.id("inlet")}, file("relay"))
	if len(joins) < 2 || len(ends) != len(joins) {
		t.Errorf("the relay has %d joins of the inlet and %d ends", len(joins), len(ends))
	}
	for _, files := range [][]string{{file("relay")}, {file("inlet")}, outlets} {
		for i, m := range audited(t, nil, files...) {
			if m["seq"] != float64(i+1) {
				t.Fatalf("%v: line %d has the number %v", files, i+1, m["seq"])
			}
		}
	}
}
