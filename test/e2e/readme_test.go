//go:build e2e && linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A snippet of a document is a sh fence below a comment that names its test:
//
//	<!-- test:NAME -->
//	```sh
//	…
//	```
//
// Snippets of one name are one script, in the document's order.
var snippet = regexp.MustCompile("(?s)<!-- test:([a-z0-9-]+) -->\\s*```sh\n(.*?)```")

// A port in a snippet: of a loopback address or behind -p.
var snippetPort = regexp.MustCompile(`(127\.0\.0\.1:|localhost:|-p )(\d{4,5})\b`)

// A pause in a snippet.
var snippetSleep = regexp.MustCompile(`\bsleep [12]\b`)

// TestREADME runs the README's snippets as a person does who pastes them, in an
// empty folder with the programs in PATH. The ports are exchanged for free ones,
// 5432 for that of a real PostgreSQL.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, names := map[string]string{}, []string{}
	for _, m := range snippet.FindAllStringSubmatch(string(text), -1) {
		if scripts[m[1]] == "" {
			names = append(names, m[1])
		}
		scripts[m[1]] += m[2]
	}
	if len(names) == 0 {
		t.Fatal("README.md has no snippet that is marked as tested")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runSnippet(t, scripts[name])
		})
	}
}

func runSnippet(t *testing.T, script string) {
	_, postgres := splitAddr(postgresServer.at(t))
	ports := map[string]string{"5432": postgres}
	script = snippetPort.ReplaceAllStringFunc(script, func(s string) string {
		m := snippetPort.FindStringSubmatch(s)
		if ports[m[2]] == "" {
			_, ports[m[2]] = splitAddr(freeAddr(t))
		}
		return m[1] + ports[m[2]]
	})
	// What a person gives programs to start is little on a busy machine.
	script = snippetSleep.ReplaceAllString(script, "sleep 5")
	dir := testDir(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := unprivileged(exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), "HOME="+dir, "PGUSER=postgres", "PGDATABASE=postgres", "PGCONNECT_TIMEOUT=20")
	// What the script leaves in the background is in its process group, and ends
	// with it.
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = time.Second
	out := newLineLog()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	err := cmd.Wait()
	if !cmd.ProcessState.Success() {
		t.Errorf("%v\nscript:\n%s\noutput:\n%s", err, script, out)
	}
	if strings.TrimSpace(out.String()) == "" {
		t.Errorf("the script prints nothing, so nobody can tell that it worked:\n%s", script)
	}
}
