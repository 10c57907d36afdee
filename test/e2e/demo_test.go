//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The line of the demo's output that says how to send a request of one's own.
var curlLine = regexp.MustCompile(`(?m)^.*?\b(curl .*?)\s*$`)

// TestDemo runs the demo as the README says, does what it tells to do, and ends
// it with Ctrl-C.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	giveAway(t, tmp)
	cmd := unprivileged(exec.Command(program("culvert"), "demo"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	demo, err := startProc("culvert demo", cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer demo.kill()
	demo.wantLog(t, patience, "Ctrl-C")
	said := demo.log.String()
	wantSaid(t, strings.ToLower(said), "inlet", "relay", "outlet", "plaintext", "ciphertext")
	line := curlLine.FindStringSubmatch(said)
	if line == nil {
		t.Fatalf("the demo does not say how to connect:\n%s", said)
	}
	out, errOut, code := tryCommand(t, patience, exec.Command("bash", "-c", line[1]))
	if code != 0 || strings.TrimSpace(out) == "" {
		t.Errorf("%s: exit code %d, %q, %s", line[1], code, out, errOut)
	}
	demo.signal(syscall.SIGINT)
	demo.wantExit(t, 0, patience)
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("the demo leaves %v behind (%v)", left, err)
	}
	if t.Failed() {
		t.Log(demo.log)
	}
}
