//go:build e2e && linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// maxChanges is how many changes a history can have.
const maxChanges = 32

// rotate gives the identity of that name a new key.
func (w *world) rotate(name string) {
	w.t.Helper()
	out, errOut, code := tryCommand(w.t, patience, unprivileged(exec.Command(program("culvert"), "identity", "rotate", w.key(name))))
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || lines[len(lines)-1] != w.ids[name] {
		w.t.Errorf("culvert identity rotate: exit code %d, stdout %q, stderr %q; want the identifier in the last line", code, out, errOut)
	}
}

// changes returns how many changes the identity file has, which must be whole.
func changes(t *testing.T, path, id string) (n int) {
	t.Helper()
	out, errOut, code := tryCommand(t, patience, unprivileged(exec.Command(program("culvert"), "identity", "show", path)))
	if _, err := fmt.Sscanf(out, "%d change", &n); code != 0 || err != nil || !strings.HasSuffix(out, "\n"+id+"\n") {
		t.Fatalf("culvert identity show %s: exit code %d, stdout %q, stderr %q", path, code, out, errOut)
	}
	return n
}

// copyKey makes the identity of another name that has the same file as it is now.
func (w *world) copyKey(name, as string) {
	w.t.Helper()
	data, err := os.ReadFile(w.key(name))
	if err == nil {
		err = os.WriteFile(w.key(as), data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	giveAway(w.t, w.key(as))
	w.ids[as] = w.id(name)
}

// TestSurviveRotation replaces the keys of the relay, the outlet and the inlet
// every tenth of a second, as often as their histories allow, while streams run
// and the channel's keys are renewed all the time.
func TestSurviveRotation(t *testing.T) {
	target := loadTarget(t)
	w := newWorld(t)
	nodes := []*node{
		w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}),
		w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"load", target, []string{"inlet"}}}}),
		w.inlet("inlet", inletConfig{Services: []local{{"load", "outlet", []string{w.hop("relay")}}}, Extra: "rekey: 1s\n"}),
	}
	w.copyKey("inlet", "old-inlet")
	over := howLong(8*time.Second, time.Minute)
	pause := (over - 3*time.Second) / maxChanges
	l := startLoad(t, w.at("inlet", "load"), 16, howLong[int64](4<<20, 64<<20), over)
	l.tick()
	watch := testenv.Start(t)
	var rotating sync.WaitGroup
	for _, n := range nodes {
		rotating.Go(func() {
			for range maxChanges - 1 {
				began := time.Now()
				w.rotate(n.name)
				n.signal(syscall.SIGHUP)
				time.Sleep(time.Until(began.Add(pause)))
			}
		})
	}
	l.wait(func() int { return 0 })
	rotating.Wait()
	longest := 5 * time.Second // a path that is lost and not found so lasts for 10 s
	if calm(watch) {
		longest = 2 * time.Second
	}
	l.pauseBelow(longest)
	for _, n := range nodes {
		if !eventually(patience, func() bool { return n.metric("culvert_channel_identity_changes") == maxChanges }) {
			t.Errorf("%s has %v changes, want %d", n.name, n.metric("culvert_channel_identity_changes"), maxChanges)
		}
		if n.metric("culvert_channel_identity_file_in_use") != 1 {
			t.Errorf("%s does not use its file's key", n.name)
		}
	}
	moved := func() float64 { return w.node("inlet").metric("culvert_channel_path_changes_total") }
	if least := over.Seconds() / 2; !eventually(patience, func() bool { return moved() >= least }) {
		t.Errorf("%v changes of path, want %v at least", moved(), least)
	}
	t.Logf("%v changes of path", moved())
	out, errOut, code := tryCommand(t, patience, unprivileged(exec.Command(program("culvert"), "identity", "rotate", w.key("inlet"))))
	if code != 1 || !strings.Contains(errOut, "full with 32 changes") {
		t.Errorf("one more: exit code %d, %q, %q", code, out, errOut)
	}
	// The first key is worth nothing any more.
	w.startInlet("old-inlet", inletConfig{Services: []local{{"load", "outlet", []string{w.hop("relay")}}}}).
		wantLog(t, 10*time.Second, `"code":"rolled_back"`, "put its newest identity file in place")
	w.node("relay").wantLog(t, patience, "handshake failed", "rolled_back")
	if n := w.node("relay").metric("culvert_channel_identities_refused_total"); n == 0 {
		t.Error("the relay has not counted the refusal")
	}
}

// TestRotationIsNotForgotten has an outlet that is found by its identity alone
// come back with the key before, after everybody else was restarted.
func TestRotationIsNotForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := func(name string) string {
		dir := filepath.Join(w.dir, name+"-state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		giveAway(t, dir)
		return "state: " + dir + "\n"
	}
	relay := w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}, Extra: state("relay")})
	c := outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}}}
	w.id("outlet")
	w.copyKey("outlet", "old-outlet")
	w.rotate("outlet")
	outlet := w.outlet("outlet", c)
	inlet := w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: state("inlet")})
	wantEcho(t, w.at("inlet", "echo"), patience)

	outlet.stop()
	relay.stop()
	inlet.stop()
	relay.restart().wantReady()
	inlet.restart()
	old := w.startOutlet("old-outlet", c)
	old.wantLog(t, patience, "not registered, trying on", `"code":"rolled_back"`)
	relay.wantLog(t, patience, "handshake failed", `"code":"rolled_back"`)
	old.stop()
	// At an inlet that meets it without a relay, too.
	c.Relays, c.Listen = nil, true
	w.outlet("old-outlet", c)
	direct := w.startInlet("direct", inletConfig{
		Identity: "inlet", Services: []local{{"echo", "outlet", []string{w.hopAt(w.addr("old-outlet"), "outlet")}}},
		Extra: "state: " + filepath.Join(w.dir, "inlet-state") + "\n",
	})
	direct.wantLog(t, patience, "cannot reach the outlet, trying on", `"code":"rolled_back"`)
	outlet.restart().wantReady()
	wantEcho(t, w.at("inlet", "echo"), patience)
}

// TestHangupWithABrokenFile has SIGHUP find a file that cannot be taken: streams
// and new ones go on, and the log says why.
func TestHangupWithABrokenFile(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	addr := w.at("inlet", "echo")
	c := dial(t, addr)
	exchange(t, c, "before")
	for _, n := range w.nodes {
		if err := os.WriteFile(w.key(n.name), []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		n.signal(syscall.SIGHUP)
		n.wantLog(t, patience, "identity file cannot be taken, the key that is in use stays", "does not start with a PEM block")
		if n.metric("culvert_channel_identity_file_in_use") != 0 {
			t.Errorf("%s says that it uses the file", n.name)
		}
	}
	exchange(t, c, "after")
	wantEcho(t, addr, patience)
}

// TestKilledRotate kills rotations at random moments, and has several at once:
// the file is always whole, and each that succeeds adds one change.
func TestKilledRotate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, key := w.id("relay"), w.key("relay")
	before := 1
	for range howLong(30, 300) {
		cmd := unprivileged(exec.Command(program("culvert"), "identity", "rotate", key))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		now := changes(t, key, id)
		if now != before && now != before+1 {
			t.Fatalf("%d changes, after %d", now, before)
		}
		if before = now; before == maxChanges {
			break
		}
	}
	w.id("outlet")
	key = w.key("outlet")
	var mu sync.Mutex
	done, rotating := 1, sync.WaitGroup{}
	for range 8 {
		rotating.Go(func() {
			_, errOut, code := tryCommand(t, patience, unprivileged(exec.Command(program("culvert"), "identity", "rotate", key)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case code == 0:
				done++
			case !strings.Contains(errOut, "another rotation of it is under way: wait for it"):
				t.Errorf("exit code %d: %s", code, errOut)
			}
		})
	}
	rotating.Wait()
	if n := changes(t, key, w.ids["outlet"]); n != done || n < 2 {
		t.Errorf("%d changes after %d rotations", n, done-1)
	}
	list, err := filepath.Glob(filepath.Join(w.dir, ".outlet*"))
	if err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}
