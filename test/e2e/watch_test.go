//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// watched is an inlet with routes over two relays, of which the first is dead, an
// outlet at both, and a stream that is open.
func watched(t *testing.T) (w *world, first *node, echoes net.Conn) {
	t.Helper()
	w = newWorld(t)
	c := relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}
	first = w.relay("first", c)
	w.relay("second", c)
	w.outlet("outlet", outletConfig{
		Relays:   []string{w.hop("first"), w.hop("second")},
		Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}, {"closed", freeAddr(t), []string{"inlet"}}},
	})
	routes := []string{w.hop("first"), w.hop("second")}
	w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", routes}, {"closed", "outlet", routes}}, Extra: "keepalive: 1s\n"})
	c1 := dial(t, w.at("inlet", "echo"))
	exchange(t, c1, "before")
	first.kill()
	exchange(t, c1, "after") // over the other relay
	return w, first, c1
}

// culvert runs a command of culvert's as the inlet's user, and returns what it prints.
func (w *world) culvert(args ...string) (out, errOut string, code int) {
	w.t.Helper()
	cmd := unprivileged(exec.Command(program("culvert"), args...))
	cmd.Dir, cmd.Env = w.dir, os.Environ()
	return tryCommand(w.t, 60*time.Second, cmd)
}

// TestPing goes an inlet's ways beside it, one of which leads over a dead relay; and
// says what to change where a service is not opened.
func TestPing(t *testing.T) {
	t.Parallel()
	w, first, stream := watched(t)
	inlet := w.node("inlet")

	out, errOut, code := w.culvert("ping", "echo", "--config", inlet.config, "--count", "3", "--interval", "1ms", "--open")
	for _, want := range []string{
		"route 1 of 2: ", "no connection", "connection refused", "→ see that the relay runs, and listens where",
		"route 2 of 2: ", "joined to the outlet", "accepted a channel", "3 of 3 PINGs answered: min ", "service", "opened", "\necho: 1 of 2 ways works\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("ping does not print %q", want)
		}
	}
	if code != 0 || errOut != "" || t.Failed() {
		t.Errorf("ping ends with %d:\n%s%s", code, out, errOut)
	}
	exchange(t, stream, "undisturbed")

	// For scripts, and where nothing works.
	out, _, code = w.culvert("ping", "closed", "--config", inlet.config, "--count", "1", "--open", "--json")
	var report struct {
		Works bool
		Ways  []struct {
			Works bool
			Code  string
			Steps []struct{ At, Step, Code, Remedy string }
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 || report.Works || len(report.Ways) != 2 {
		t.Fatalf("ping --json of a service whose target refuses: %v, code %d:\n%s", err, code, out)
	}
	if dead := report.Ways[0]; dead.Code != "unreachable" {
		t.Errorf("the dead relay's way says %q, want unreachable", dead.Code)
	}
	if last := report.Ways[1].Steps[len(report.Ways[1].Steps)-1]; last.Code != "target_refused" || !strings.Contains(last.Remedy, "the service (closed) listens at target") {
		t.Errorf("the last step is %+v, want target_refused and what to do", last)
	}

	// Both ways again.
	first.restart().wantReady()
	if !eventually(patience, func() bool { // the outlet registers there again
		out, _, code = w.culvert("ping", "echo", "--config", inlet.config, "--count", "1")
		return code == 0 && strings.Contains(out, "2 of 2 ways work\n")
	}) {
		t.Errorf("ping ends with %d:\n%s", code, out)
	}
	if _, errOut, code = w.culvert("ping", "ecoh", "--config", inlet.config); code != 2 || !strings.Contains(errOut, `the inlet has no service "ecoh": there are echo, closed`) {
		t.Errorf("ping of a service that there is not ends with %d: %s", code, errOut)
	}
}

// TestPingByName goes the ways of a service that any outlet offers which proves it: with
// the inlet's credential, to each that the relay lists. Whoever is revoked is refused,
// and told what to do.
func TestPingByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authority := w.id("authority")
	w.start("relay", "relay", "", "listen: [\"tcp://"+w.addr("relay")+"\"]\nauthorities: ["+authority+"]\n"+
		"register: peer.id == \""+authority+"\" || peer.attr.role == \"outlet\"\n"+
		"connect: target == \""+authority+"\" || peer.attr.role == \"inlet\"\n").wantReady()
	a := w.authority("authority", "relay")
	for _, name := range []string{"one", "two"} {
		w.start("outlet", name, "", "relays: "+list([]string{w.hop("relay")})+"\nservices:\n  - name: orders-db\n    target: tcp://"+serveTCP(t, named(name))+
			"\n    allow: peer.attr.role == \"inlet\"\n"+a.enrolment(t, name, "role=outlet", "service=orders-db")).wantReady()
	}
	inlet := w.start("inlet", "inlet", "", "services:\n  - listen: tcp://"+w.at("inlet", "orders-db")+"\n    service: orders-db\n    routes: "+
		list([]string{w.hop("relay")})+"\n"+a.enrolment(t, "inlet", "role=inlet")).wantReady()
	wantOnly(t, w.at("inlet", "orders-db"), patience, "one", "two")

	out, errOut, code := w.culvert("ping", "--config", inlet.config, "--count", "1", "--open")
	for _, want := range []string{"answered who offers it", "it lists 2 outlets", "opened", "\norders-db: 2 of 2 ways work\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("ping does not print %q", want)
		}
	}
	if code != 0 || errOut != "" || t.Failed() {
		t.Fatalf("ping ends with %d:\n%s%s", code, out, errOut)
	}
	wantOnly(t, w.at("inlet", "orders-db"), patience, "one", "two")

	a.mustAt("revoke", w.id("inlet"))
	if !eventually(patience, func() bool { // the outlets have heard of it
		out, _, code = w.culvert("ping", "--config", inlet.config, "--count", "1")
		words := strings.Join(strings.Fields(out), " ") // whatever the lines are
		return code == 1 && strings.Contains(words, "identity_revoked") && strings.Contains(words, "make a new identity, and enrol that")
	}) {
		t.Errorf("ping of a revoked inlet ends with %d:\n%s", code, out)
	}
}

// TestPingInterrupted prints what there is when it is interrupted.
func TestPingInterrupted(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	cmd := unprivileged(exec.Command(program("culvert"), "ping", "echo", "--config", w.node("inlet").config, "--count", "100000", "--interval", "1ms"))
	p, err := startProc("ping", cmd)
	if err != nil {
		t.Fatal(err)
	}
	p.wantLog(t, patience, "accepted a channel")
	p.signal(os.Interrupt)
	p.wantExit(t, 0, patience)
	p.wantLog(t, patience, "PINGs answered")
	p.wantLog(t, patience, "(interrupted)")
}

// TestStatus asks each program, for people and for scripts, and one that is not ready
// and one that does not run.
func TestStatus(t *testing.T) {
	t.Parallel()
	w, first, _ := watched(t)
	inlet := w.node("inlet")
	for name, want := range map[string][]string{
		"inlet":  {"inlet", "ready", w.id("inlet"), "CHANNELS", "in use", w.addr("second"), "failed", w.addr("first"), "SERVICES", "echo", "closed"},
		"outlet": {"outlet", "not registered", w.addr("first"), "registered", w.addr("second"), "echo"},
		"second": {"relay", "ready", "JOINS", "connect", "REGISTRATIONS"},
	} {
		var out, errOut string
		var code int
		if !eventually(patience, func() bool { // some hear of the relay's end later than the stream has
			out, errOut, code = w.culvert("status", "--config", w.node(name).config)
			return holdsAll(out, want)
		}) {
			t.Errorf("the status of %s has not all of %q:\n%s", name, want, out)
		}
		if code == 2 || errOut != "" || strings.Contains(out, "\x1b") {
			t.Errorf("status of %s ends with %d: %s\n%q", name, code, errOut, out)
		}
	}
	out, _, code := w.culvert("status", "--admin", inlet.admin, "--json")
	if code != 0 || !json.Valid([]byte(out)) || !strings.Contains(out, w.id("inlet")) {
		t.Errorf("status --json ends with %d:\n%s", code, cut(out))
	}
	if out, _, code = w.culvert("status", "channels", "--admin", inlet.admin, "--json"); code != 0 || !strings.HasPrefix(out, "[") {
		t.Errorf("status channels --json ends with %d:\n%s", code, cut(out))
	}
	cmd := unprivileged(exec.Command(program("culvert"), "status", "routes"))
	cmd.Env = append(os.Environ(), "CULVERT_ADMIN="+inlet.admin)
	if out, errOut, code := tryCommand(t, patience, cmd); code != 0 || !strings.Contains(out, "failed") {
		t.Errorf("status by CULVERT_ADMIN ends with %d:\n%s%s", code, out, errOut)
	}

	if _, errOut, code := w.culvert("status", "--config", first.config); code != 1 || !strings.Contains(errOut, "nobody answers at the admin address "+first.admin) {
		t.Errorf("status of a relay that was killed ends with %d: %s", code, errOut)
	}
	lost := w.startInlet("lost", inletConfig{Identity: "inlet", Services: []local{{"echo", "outlet", []string{w.hop("first")}}}})
	if out, _, code := w.culvert("status", "--config", lost.config); code != 1 || !strings.Contains(out, "not ready") || !strings.Contains(out, "service/echo") {
		t.Errorf("status of an inlet without a way ends with %d:\n%s", code, out)
	}
}

// TestTop runs top in a terminal of 80 columns and 24 lines, over the death of what it
// watches, and quits it: the terminal is then as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	w, _, stream := watched(t)
	inlet := w.node("inlet")
	cmd := unprivileged(exec.Command(program("culvert"), "top", "--config", inlet.config, "--interval", "100ms"))
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=")
	attr := cmd.SysProcAttr
	attr.Setsid, attr.Setctty = true, true
	terminal, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 24, Cols: 80}, attr)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	screen := &proc{name: "top", cmd: cmd, log: newLineLog(), done: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(screen.log, terminal)
	}()
	go func() {
		defer close(screen.done)
		if err := cmd.Wait(); err != nil {
			screen.code = cmd.ProcessState.ExitCode()
		}
	}()
	t.Cleanup(func() {
		screen.signal(syscall.SIGKILL)
		<-screen.done
	})
	shows := func(what string) {
		t.Helper()
		if !eventually(patience, func() bool { return strings.Contains(screen.log.String(), what) || !screen.running() }) || !screen.running() {
			t.Fatalf("top does not show %q: %q", what, screen.log.tail(30))
		}
	}
	keys := func(text string) {
		t.Helper()
		if _, err := io.WriteString(terminal, text); err != nil {
			t.Fatal(err)
		}
	}
	shows("[streams]")
	exchange(t, stream, "seen")
	keys("\t")
	shows("[channels]")
	keys("\t")
	shows("[routes]")
	keys("?")
	shows("one down")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 12, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	inlet.kill()
	shows("not reachable since ")
	inlet.restart().wantReady()
	// Only what changes is drawn, but for another size: then all is.
	drawn, rows, resized := 0, uint16(24), time.Time{}
	if !eventually(patience, func() bool {
		if time.Since(resized) > time.Second {
			drawn, rows, resized = len(screen.log.String()), 12+24-rows, time.Now()
			if err := pty.Setsize(terminal, &pty.Winsize{Rows: rows, Cols: 80}); err != nil {
				t.Fatal(err)
			}
		}
		text := screen.log.String()[drawn:]
		return strings.Contains(text, "ready") && strings.Contains(text, "[routes]") && !strings.Contains(text, "not re")
	}) {
		t.Errorf("top does not come back: %q", screen.log.tail(30))
	}
	keys("q")
	screen.wantExit(t, 0, patience)
	_ = terminal.Close()
	<-read
	if out := screen.log.String(); !strings.Contains(out, "\x1b[?1049h") || !strings.Contains(out[strings.LastIndex(out, "\x1b[?1049h"):], "\x1b[?1049l") {
		t.Errorf("the other screen was not left: %q", screen.log.tail(5))
	}
}
