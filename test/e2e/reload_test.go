//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cutTime is within what time what is not allowed any more has ended. It is promised
// within 5 s, of a machine that has the time; what would have forgotten it does not
// come to it before a minute has passed.
const cutTime = 20 * time.Second

// settings returns the text of a program's settings file.
func (n *node) settings() string {
	n.w.t.Helper()
	b, err := os.ReadFile(n.config)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return string(b)
}

// put exchanges a file as a whole.
func put(t *testing.T, path, text string) {
	t.Helper()
	err := os.WriteFile(path+".next", []byte(text), 0o644)
	if err == nil {
		err = os.Rename(path+".next", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hangup gives the program other settings, and says so.
func (n *node) hangup(text string) {
	n.w.t.Helper()
	put(n.w.t, n.config, text)
	n.signal(syscall.SIGHUP)
}

// reload is hangup for settings that are good, and waits until they hold.
func (n *node) reload(text string) {
	n.w.t.Helper()
	before := n.metric(`culvert_config_reloads_total`)
	n.hangup(text)
	if !eventually(patience, func() bool { return n.metric(`culvert_config_reloads_total`) > before }) {
		n.w.t.Fatalf("%s: the settings file is not read again", n.name)
	}
	if n.metric("culvert_config_file_in_use") != 1 {
		n.w.t.Errorf("%s: the settings do not hold", n.name)
	}
}

// TestReload has a stream through a relay live on while the outlet and the relay
// take new settings that allow it, and bad ones, and end by those that do not.
func TestReload(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ node, key, code string }{
		"outlet": {"outlet", "allow: ", "stream_denied"},
		"relay":  {"relay1", "connect: ", "connect_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
			addr, n := w.at("inlet", "echo"), w.node(tt.node)
			c := dial(t, addr)
			exchange(t, c, "before")
			good := n.settings()
			mine, others := tt.key+list([]string{w.id("inlet")}), tt.key+list([]string{w.id("stranger")})

			n.reload(strings.Replace(good, mine, tt.key+list([]string{w.id("stranger"), w.id("inlet")}), 1))
			exchange(t, c, "allowed as before")
			n.reload(strings.Replace(good, mine, tt.key+`'peer.id == "`+w.id("inlet")+`"'`, 1))
			exchange(t, c, "allowed by an expression")

			n.hangup(strings.Replace(good, mine, tt.key+"peer.name == 1", 1))
			n.wantLog(t, patience, "settings file cannot be taken, what holds stays", filepath.Base(n.config)+":")
			exchange(t, c, "a bad file changes nothing")
			wantEcho(t, addr, patience)
			if n.metric("culvert_config_file_in_use") != 0 {
				t.Error("the bad file is said to be in use")
			}

			n.reload(strings.Replace(good, mine, others, 1))
			if name == "outlet" {
				wantReset(t, c, cutTime)
			} else { // which ends what it carries; streams wait for another way
				n.wantLog(t, cutTime, `"msg":"join ended"`, `"code":"connect_denied"`)
			}
			w.node("inlet").wantLog(t, patience, `"code":"`+tt.code+`"`)
			if err := tryEcho(addr, "after"); err == nil {
				t.Error("who may not any more still gets a stream")
			}
			n.reload(good)
			wantEcho(t, addr, patience)
			if name == "relay" {
				exchange(t, c, "what waited goes on")
			}
		})
	}
}

// A mount is a folder as Kubernetes mounts a ConfigMap: a program's settings file is a
// link to a link that is exchanged as a whole.
type mount struct {
	n       *node
	folder  string
	version int
}

// mount puts the program's settings file into one.
func (n *node) mount() *mount {
	n.w.t.Helper()
	m := &mount{n: n, folder: filepath.Join(n.w.dir, "mount-"+n.name)}
	m.publish(n.settings())
	err := os.Symlink(filepath.Join(m.folder, "..data", "settings.yaml"), n.config+".next")
	if err == nil {
		err = os.Rename(n.config+".next", n.config)
	}
	if err != nil {
		n.w.t.Fatal(err)
	}
	return m
}

// publish exchanges what is mounted.
func (m *mount) publish(text string) {
	t := m.n.w.t
	t.Helper()
	m.version++
	version := fmt.Sprintf("..%d", m.version)
	if err := os.MkdirAll(filepath.Join(m.folder, version), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(m.folder, version, "settings.yaml"), text)
	next := filepath.Join(m.folder, "..next")
	err := os.Symlink(version, next)
	if err == nil {
		err = os.Rename(next, filepath.Join(m.folder, "..data"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReloadOfAMountedFile: a settings file that a link above it leads to, as
// Kubernetes mounts a ConfigMap, is noticed without a signal when the link is
// exchanged.
func TestReloadOfAMountedFile(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	n := w.node("outlet")
	good := n.settings()
	m := n.mount()
	reloads := func(n *node, want float64) {
		t.Helper()
		if !eventually(patience, func() bool { return n.metric("culvert_config_reloads_total") == want }) {
			t.Fatalf("%v reloads, want %v", n.metric("culvert_config_reloads_total"), want)
		}
	}
	reloads(n, 1)
	c := dial(t, w.at("inlet", "echo"))
	exchange(t, c, "before")
	m.publish(good + "# the same\n")
	reloads(n, 2)
	exchange(t, c, "allowed as before")
	m.publish(strings.ReplaceAll(good, w.id("inlet"), w.id("stranger")))
	reloads(n, 3)
	wantReset(t, c, cutTime)
}
