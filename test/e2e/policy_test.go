//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// An expression decides at the relay and at the outlet of running programs, and
// each logs why it denies; the inlet hears that it is denied, and no more.
func TestPolicyExpressions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	local, denied := freeAddr(t), freeAddr(t)
	target := serveTCP(t, echo)
	w.background("relay", nil, "--identity", w.keyOf("relay"), "--listen", w.addr("relay"),
		"--register", `peer.id == "`+w.id("outlet")+`"`, "--connect", `peer.id in ["`+w.id("inlet")+`"] && now.getFullYear("Europe/Berlin") > 2000`)
	outlet := w.background("outlet", []string{`CULVERT_ALLOW=service == "echo" || peer.attr.role == "a-secret-role"`},
		"--identity", w.keyOf("outlet"), "--relay", w.hop("relay"), "--service", "echo="+target, "--service", "other="+target)
	w.background("inlet", nil, "--identity", w.keyOf("inlet"), "--listen", local, "--service", "echo", "--outlet", w.id("outlet"), "--route", w.hop("relay"))
	stranger := w.background("inlet", nil, "--identity", w.keyOf("inlet"), "--listen", denied, "--service", "other", "--outlet", w.id("outlet"), "--route", w.hop("relay"))
	wantEcho(t, local, patience)
	wantNewReset(t, denied, patience)
	outlet.wantLog(t, patience, "stream_denied", `peer has no attribute \"role\"`)
	stranger.wantLog(t, patience, "stream_denied", "is not allowed to use the service")
	if strings.Contains(stranger.log.String(), "secret") {
		t.Errorf("the inlet was told the policy:\n%s", stranger.log)
	}
}

// A folder with the program and the settings and nothing else, as in an image
// from scratch, has time zones.
func TestPolicyTimeZoneFromScratch(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a folder becomes a program's root: run the end-to-end tests as root")
	}
	t.Parallel()
	w := newWorld(t)
	root := testDir(t)
	for _, name := range []string{"culvert", "outlet", "relay"} {
		b, err := os.ReadFile(program(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"outlet": "identity: KEY\nlisten: [127.0.0.1:1]\nservices:\n  - {name: db, target: 'tcp://127.0.0.1:1', allow: 'now.getHours(\"Europe/Berlin\") == 9'}\n",
		"relay":  "identity: KEY\nlisten: [127.0.0.1:1]\nconnect: 'now.getHours(\"Europe/Berlin\") == 9'\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name+".yaml"), []byte(strings.ReplaceAll(text, "KEY", "none.key")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) (string, int) {
		cmd := exec.Command("/"+name, args...)
		cmd.Dir, cmd.Env = "/", []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	for now, want := range map[string]int{"2026-07-01T07:30:00Z": 0, "2026-01-01T07:30:00Z": 1} {
		out, code := run("culvert", "policy", "test", "--config", "outlet.yaml", "--peer", w.id("inlet"), "--service", "db", "--now", now)
		if code != want {
			t.Errorf("at %s: exit code %d, want %d: %s", now, code, want, out)
		}
	}
	// The daemons get as far as the identity, which is not there.
	for _, name := range []string{"outlet", "relay"} {
		if out, code := run(name, "--config", name+".yaml"); code != 1 || !strings.Contains(out, "none.key") || strings.Contains(out, "zone") {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
	}
}
