//go:build e2e && linux

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// state makes a folder `state` for that name, and returns the setting.
func (w *world) state(name string) string {
	w.t.Helper()
	folder := filepath.Join(w.dir, "state-"+name)
	if err := os.Mkdir(folder, 0o777); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		w.t.Fatal(err)
	}
	return "state: " + folder + "\n"
}

// enrolment returns the settings by which a new machine enrols with attributes.
func (n *node) enrolment(t *testing.T, name string, attributes ...string) string {
	t.Helper()
	args := []string{"--uses", "1"}
	for _, a := range attributes {
		args = append(args, "--attr", a)
	}
	text, err := n.ticket(args...).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return n.w.state(name) + "ticket: " + text + "\n"
}

// Nobody lists anybody: an outlet and an inlet enrol by tickets, through a relay
// that lets newcomers to the authority alone, and are let in by what the authority
// says of them. A restart does not need the ticket again, nor the authority. Whoever
// is revoked is cut within 5 s and stays outside.
func TestMembersByTicketOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authority := w.id("authority")
	w.start("relay", "relay", "", "listen: [\"tcp://"+w.addr("relay")+"\"]\nauthorities: ["+authority+"]\n"+
		"register: peer.id == \""+authority+"\" || peer.attr.role == \"outlet\"\n"+
		"connect: target == \""+authority+"\" || peer.attr.role == \"inlet\"\n").wantReady()
	a := w.authority("authority", "relay")
	target := serveTCP(t, echo)
	w.start("outlet", "outlet", "", "relays: "+list([]string{w.hop("relay")})+"\nservices:\n  - name: echo\n    target: tcp://"+target+
		"\n    allow: peer.attr.role == \"inlet\"\n"+a.enrolment(t, "outlet", "role=outlet")).wantReady()
	inlet := w.start("inlet", "inlet", "", "services:\n  - listen: tcp://"+w.at("inlet", "echo")+"\n    service: echo\n    outlet: "+w.id("outlet")+
		"\n    routes: "+list([]string{w.hop("relay")})+"\n"+a.enrolment(t, "inlet", "role=inlet")).wantReady()
	wantEcho(t, w.at("inlet", "echo"), patience)

	a.stop()
	inlet.restart()
	inlet.wantReady()
	wantEcho(t, w.at("inlet", "echo"), patience)
	a.restart()
	a.wantReady()

	c := dial(t, w.at("inlet", "echo"))
	exchange(t, c, "before")
	// Whoever is not connected to the authority hears of it when it is again.
	if !eventually(patience, func() bool { return inlet.metric("culvert_channel_authority_connected") == 1 }) {
		t.Fatal("the inlet does not come back to the authority")
	}
	watch := testenv.Start(t)
	a.mustAt("revoke", w.id("inlet"))
	wantReset(t, c, cutTime)
	if took := watch.Took(); took > 5*time.Second && calm(watch) {
		t.Errorf("the stream was cut after %s, want 5 s at most", took)
	}
	if err := tryEcho(w.at("inlet", "echo"), "after"); err == nil {
		t.Error("the revoked inlet still gets a stream")
	}
}
