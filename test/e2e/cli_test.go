//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// background starts a program with arguments and environment instead of a
// config. It is stopped at the end of the test and must then exit with 0.
func (w *world) background(name string, env []string, args ...string) *proc {
	w.t.Helper()
	cmd := unprivileged(exec.Command(program(name), args...))
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), env...)
	p, err := startProc(name, cmd)
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes = append(w.nodes, &node{proc: p, w: w, program: name})
	return p
}

// TestFlags joins a service with no file but the keys.
func TestFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	local := freeAddr(t)
	w.background("relay", nil, "--identity", w.keyOf("relay"), "--listen", w.addr("relay"), "--register", w.id("outlet"), "--connect", w.id("inlet"))
	w.background("outlet", nil, "--identity", w.keyOf("outlet"), "--relay", w.hop("relay"), "--service", "echo="+serveTCP(t, echo), "--allow", w.id("inlet"))
	w.background("inlet", nil, "--identity", w.keyOf("inlet"), "--listen", local, "--service", "echo", "--outlet", w.id("outlet"),
		"--route", w.hop("nobody-listens"), "--route", w.hop("relay"))
	wantEcho(t, local, patience)
}

// keyOf is [world.key] of an identity that is made if it is not there.
func (w *world) keyOf(name string) string { w.t.Helper(); w.id(name); return w.key(name) }

// TestEnvironment says the same by environment; a flag beats it, and it beats
// the file.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	local := freeAddr(t)
	w.background("relay", []string{
		"CULVERT_IDENTITY=" + w.keyOf("relay"), "CULVERT_LISTEN=" + w.addr("relay"),
		"CULVERT_REGISTER=" + w.id("outlet") + " " + w.id("somebody-else"), "CULVERT_CONNECT=" + w.id("inlet"),
	})
	w.background("outlet", []string{
		"CULVERT_IDENTITY=" + w.keyOf("outlet"), "CULVERT_RELAY=" + w.hop("relay"), "CULVERT_SERVICE=echo=" + serveTCP(t, echo), "CULVERT_ALLOW=" + w.id("inlet"),
	})
	config := w.dir + "/inlet.yaml"
	text := fmt.Sprintf("identity: %s\nservices:\n  - {listen: 'tcp://%s', service: echo, outlet: '${OUTLET}', routes: ['%s']}\nlog_format: console\n",
		w.keyOf("inlet"), local, w.hop("relay"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	inlet := w.background("inlet", []string{"CULVERT_CONFIG=" + config, "OUTLET=" + w.id("outlet"), "CULVERT_LOG_FORMAT=console"}, "--log-format", "json")
	wantEcho(t, local, patience)
	var line map[string]any
	first, _, _ := strings.Cut(inlet.log.String(), "\n")
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Errorf("the flag does not beat environment and file: the log begins with %q", first)
	}
}

// TestHealth asks with the programs' own probes, which need no shell.
func TestHealth(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	for _, n := range w.nodes {
		exits(t, 0, n.program, "--config", n.config, "--health")
	}
	inlet := w.node("inlet")
	exits(t, 0, "inlet", "--config", inlet.config, "--health", "echo")
	said := exits(t, 1, "inlet", "--config", inlet.config, "--health", "no-such-service")
	wantSaid(t, said, "no-such-service")

	relay := w.node("relay1")
	relay.kill()
	wantSaid(t, exits(t, 1, "relay", "--config", relay.config, "--health"), "connection refused")
	inlet.wantNotReady(patience, "echo")
	wantSaid(t, exits(t, 1, "inlet", "--config", inlet.config, "--health", "echo"), "echo")
}

// TestObserved reads what a running inlet tells of itself, after some work and
// a refusal.
func TestObserved(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo), "closed": freeAddr(t)})
	c := dial(t, w.at("inlet", "echo"))
	exchange(t, c, "seen")
	wantNewReset(t, w.at("inlet", "closed"), patience)
	for _, n := range w.nodes {
		metrics := n.get("/metrics")
		prefix := "culvert_" + n.program + "_"
		if metrics.code != http.StatusOK || !strings.Contains(metrics.body, "\n"+prefix) {
			t.Errorf("%s: /metrics has no %s…: %d\n%s", n.name, prefix, metrics.code, cut(metrics.body))
		}
		if n.program != "relay" && !strings.Contains(metrics.body, `"target_refused"`) {
			t.Errorf("%s: no metric counts target_refused", n.name)
		}
		if got := n.get("/status").code; got != http.StatusNotFound {
			t.Errorf("%s: the metrics server answers /status with %d, want 404", n.name, got)
		}
		n.wantStatus(t)
	}
}

// wantStatus wants JSON at /status of the admin server, to whom asks as a local
// program does and not to a page of somebody else's.
func (n *node) wantStatus(t *testing.T) {
	t.Helper()
	ask := func(header, value string) (int, []byte) {
		req, err := http.NewRequest(http.MethodGet, "http://"+n.admin+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		switch header {
		case "Host":
			req.Host = value
		case "Origin":
			req.Header.Set(header, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	code, body := ask("", "")
	if code != http.StatusOK || !json.Valid(body) {
		t.Errorf("%s: /status: %d %s", n.name, code, cut(string(body)))
	}
	if code, body := ask("Host", "evil.example"); code != http.StatusMisdirectedRequest {
		t.Errorf("%s: /status answers another host's name with %d %s, want 421", n.name, code, cut(string(body)))
	}
	if code, body := ask("Origin", "http://evil.example"); code != http.StatusForbidden {
		t.Errorf("%s: /status answers another page's origin with %d %s, want 403", n.name, code, cut(string(body)))
	}
}
