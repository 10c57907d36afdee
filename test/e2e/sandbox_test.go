//go:build e2e && linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSandbox has confined programs do all that they do with files after their start:
// take a replaced key and replaced settings, keep what they know, and follow a log that
// is renamed. What has moved to where the settings did not say cannot be opened, by
// one that is confined.
func TestSandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const extra = "audit: NAME.audit\nstate: NAME.state\n"
	of := func(name string) string { return strings.ReplaceAll(extra, "NAME", name) }
	relay := w.relay("relay", relayConfig{Register: []string{"outlet", "free"}, Connect: []string{"inlet"}, Extra: of("relay")})
	target := serveTCP(t, echo)
	outlet := w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", target, []string{"inlet"}}}, Extra: of("outlet")})
	free := w.outlet("free", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", target, []string{"inlet"}}}, Extra: of("free") + "sandbox: off\n"})
	inlet := w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: of("inlet") + "rekey: 1s\n"})
	confined := []*node{relay, outlet, inlet}
	for _, n := range confined {
		n.wantLog(t, patience, "this process is confined to its files", n.w.dir)
	}
	if strings.Contains(free.log.String(), "confined") {
		t.Error("a process with sandbox: off speaks of being confined")
	}
	c := dial(t, w.at("inlet", "echo"))
	exchange(t, c, "before")

	for _, n := range confined {
		w.rotate(n.name)
		n.signal(syscall.SIGHUP)
		n.wantLog(t, patience, "identity has a new key")
		good := n.settings()
		n.reload(good + "# the same\n")
		log := filepath.Join(w.dir, n.name+".audit")
		if err := os.Rename(log, log+".1"); err != nil {
			t.Fatal(err)
		}
		n.signal(syscall.SIGHUP)
		if !eventually(patience, func() bool { _, err := os.Stat(log); return err == nil }) {
			t.Errorf("%s: no new audit log", n.name)
		}
	}
	histories := filepath.Join(w.dir, "inlet.state", "histories")
	if !eventually(patience, func() bool {
		b, err := os.ReadFile(histories)
		return err == nil && strings.Contains(string(b), w.id("outlet"))
	}) {
		t.Error("the inlet does not keep the outlet's new history")
	}
	exchange(t, c, "after")
	for _, n := range confined {
		if n.metric("culvert_channel_identity_file_in_use") != 1 || n.metric("process_open_fds") < 3 || n.metric("process_start_time_seconds") <= 0 {
			t.Errorf("%s: /metrics: %s", n.name, cut(n.get("/metrics").body))
		}
	}

	elsewhere := testDir(t)
	for _, n := range []*node{outlet, free} {
		moved := filepath.Join(elsewhere, n.name+".yaml")
		if err := os.WriteFile(moved, []byte(n.settings()+"# moved\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(moved, n.config+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(n.config+".link", n.config); err != nil {
			t.Fatal(err)
		}
		before := n.log.String()
		n.signal(syscall.SIGHUP)
		want := "settings file cannot be taken"
		if n == free {
			want = "settings file was read again and holds"
		}
		if !eventually(patience, func() bool { return strings.Contains(strings.TrimPrefix(n.log.String(), before), want) }) {
			t.Errorf("%s: no line with %q:\n%s", n.name, want, n.log.tail(10))
		}
	}
	outlet.wantLog(t, patience, "settings file cannot be taken", "permission denied", "opens only what its settings named at its start")
}
