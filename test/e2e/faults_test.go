//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exits runs a program that must not stay up, and returns what it says.
func exits(t *testing.T, code int, name string, args ...string) (said string) {
	t.Helper()
	out, errOut, got := tryCommand(t, patience, unprivileged(exec.Command(program(name), args...)))
	if got != code {
		t.Errorf("%s %q: exit code %d, want %d", name, args, got, code)
	}
	return out + errOut
}

func wantSaid(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("the message lacks %q:\n%s", part, said)
		}
	}
}

// TestConfigFaults gives each program, and `culvert check`, a config with a
// fault: the message names the file, the place, the key and what is wrong.
func TestConfigFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const (
		relay  = "identity: KEY\nlisten: [tcp://127.0.0.1:1]\nregister: [ID]\n"
		outlet = "identity: KEY\nlisten: [tcp://127.0.0.1:1]\nservices:\n  - name: db\n    target: tcp://127.0.0.1:1\n    allow: [ID]\n"
		inlet  = "identity: KEY\nservices:\n  - listen: tcp://127.0.0.1:1\n    service: db\n    outlet: ID\n    routes: [tcp://127.0.0.1:1/ID]\n"
	)
	for _, tc := range []struct {
		name, program, config string
		place                 string // line:column
		parts                 []string
	}{
		{"unknown key", "relay", relay + "conect: [ID]\n", "4:1", []string{"conect", "connect"}},
		{"unknown key in a list", "inlet", inlet + "    rutes: []\n", "7:5", []string{"rutes"}},
		{"wrong type", "relay", strings.Replace(relay, "[tcp://127.0.0.1:1]", "{a: b}", 1), "2:9", []string{"listen"}},
		{"wrong type in a list", "outlet", strings.Replace(outlet, "name: db", "name: [db]", 1), "4:11", []string{"name"}},
		{"not a duration", "inlet", inlet + "drain_timeout: soon\n", "7:16", []string{"drain_timeout", "soon"}},
		{"not an identifier", "outlet", strings.Replace(outlet, "ID", "bob", 1), "6:13", []string{"allow", "3 characters", "culvert identity show"}},
		{"not a route", "inlet", strings.Replace(inlet, "routes: [tcp://127.0.0.1:1/ID]", "routes: [127.0.0.1]", 1), "6:14", []string{"routes", "127.0.0.1"}},
		{"listen without a host", "inlet", strings.Replace(inlet, "127.0.0.1:1\n", ":1\n", 1), "3:13", []string{"listen", "host"}},
		{"metrics without a host", "relay", relay + "metrics: :9100\n", "4:10", []string{"metrics", "host"}},
		{"admin on every interface", "relay", relay + "admin: 0.0.0.0:9101\n", "4:8", []string{"admin", "other machines"}},
		{"undefined variable", "inlet", strings.Replace(inlet, "service: db", "service: ${NO_SUCH_VARIABLE}", 1), "4:14", []string{"NO_SUCH_VARIABLE"}},
		{"not YAML", "relay", "identity: [\n", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := strings.NewReplacer("KEY", w.key("me"), "ID", w.id("me")).Replace(tc.config)
			file := filepath.Join(w.dir, strings.ReplaceAll(tc.name, " ", "-")+"-"+tc.program+".yaml")
			if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			want := append(tc.parts, file)
			if tc.place != "" {
				want = append(want, file+":"+tc.place)
			}
			wantSaid(t, exits(t, 1, tc.program, "--config", file), want...)
			wantSaid(t, exits(t, 1, "culvert", "check", file), want...)
		})
	}

	t.Run("missing file", func(t *testing.T) {
		file := filepath.Join(w.dir, "missing.yaml")
		for _, name := range []string{"relay", "outlet", "inlet"} {
			wantSaid(t, exits(t, 1, name, "--config", file), file, "no such file")
		}
		wantSaid(t, exits(t, 1, "culvert", "check", file), file, "no such file")
	})

	t.Run("wrong usage", func(t *testing.T) {
		for _, name := range []string{"relay", "outlet", "inlet", "culvert"} {
			wantSaid(t, exits(t, 2, name, "--no-such-flag"), "no-such-flag")
		}
	})

	t.Run("nothing to do", func(t *testing.T) {
		for _, name := range []string{"relay", "outlet", "inlet"} {
			if said := exits(t, 2, name); said == "" {
				t.Errorf("%s without arguments says nothing", name)
			}
		}
	})
}

// TestKeyFaults has keys that others may read or write, keys that are none, and
// no keys: the message names the file and what to do.
func TestKeyFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.id("me")
	run := func(key string) (said string) {
		t.Helper()
		said = exits(t, 1, "relay", "--identity", key, "--listen", freeAddr(t), "--register", w.id("me"), "--connect", w.id("me"))
		secret, err := os.ReadFile(w.key("me"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(secret)) {
			if line = strings.TrimSpace(line); len(line) > 40 && strings.Contains(said, line) {
				t.Errorf("the message holds a line of the key file: %s", said)
			}
		}
		return said
	}
	for _, mode := range []os.FileMode{0o604, 0o644, 0o602, 0o666, 0o620} {
		key := filepath.Join(w.dir, mode.String())
		copyFile(t, w.key("me"), key)
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, run(key), key, "chmod 600 "+key)
	}
	missing := filepath.Join(w.dir, "missing.key")
	wantSaid(t, run(missing), missing, "no such file", "culvert identity new")
	other := filepath.Join(w.dir, "other.key")
	if err := os.WriteFile(other, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	giveAway(t, other)
	wantSaid(t, run(other), other)

	// A group may read: that is how Kubernetes shows a Secret.
	group := filepath.Join(w.dir, "group.key")
	copyFile(t, w.key("me"), group)
	if err := os.Chmod(group, 0o440); err != nil {
		t.Fatal(err)
	}
	said := exits(t, 0, "culvert", "identity", "show", group)
	wantSaid(t, said, w.id("me"))
}

// TestIdentityNewRefusesToOverwrite holds that a key is never lost to a second
// run of the same command.
func TestIdentityNewRefusesToOverwrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.id("me")
	before, err := os.ReadFile(w.key("me"))
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, exits(t, 1, "culvert", "identity", "new", "-o", w.key("me")), w.key("me"))
	after, err := os.ReadFile(w.key("me"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the key file changed (%v)", err)
	}
	info, err := os.Stat(w.key("me"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("the key file has mode %v, want 0600", got)
	}
}

// TestPortTaken has each program find its port taken: it says which and ends.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	me := w.id("me")
	ln := listenTCP(t)
	defer ln.Close()
	taken := ln.Addr().String()
	for _, args := range [][]string{
		{"relay", "--listen", taken, "--register", me, "--connect", me},
		{"inlet", "--listen", taken, "--service", "db", "--outlet", me, "--route", w.hop("me")},
		{"outlet", "--listen", taken, "--service", "db=127.0.0.1:1", "--allow", me},
		{"relay", "--listen", freeAddr(t), "--register", me, "--connect", me, "--metrics", taken},
	} {
		wantSaid(t, exits(t, 1, args[0], append([]string{"--identity", w.key("me")}, args[1:]...)...), taken, "address already in use")
	}
}
