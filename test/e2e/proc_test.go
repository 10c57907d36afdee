//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that is to happen, on a machine that may be
// busy with other things: it is for what does not happen at all.
const patience = time.Minute

// nobody is whom the programs and servers run as when the tests run as root:
// PostgreSQL refuses root, and what an unprivileged user may do is the rule for
// a sidecar.
const nobody = 65534

// unprivileged makes cmd run as [nobody] if the tests run as root, and die with
// the tests in any case.
func unprivileged(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// giveAway makes a file or folder the unprivileged user's.
func giveAway(t testing.TB, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// A proc is a program that runs beside the test.
type proc struct {
	name string
	cmd  *exec.Cmd
	log  *lineLog      // standard output and standard error
	done chan struct{} // closed when the process has been waited for
	code int           // the exit code, -1 for a signal; valid after done
}

// startProc starts cmd and waits for it in a goroutine that ends with it.
func startProc(name string, cmd *exec.Cmd) (*proc, error) { return startProcTo(name, cmd, nil) }

// startProcTo is startProc of a program whose log goes to a file, unless that is nil.
func startProcTo(name string, cmd *exec.Cmd, file *os.File) (*proc, error) {
	p := &proc{name: name, cmd: cmd, log: newLineLog(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if file != nil {
		cmd.Stderr = file
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			p.code = exit.ExitCode()
		case err != nil:
			p.code = -1
		}
	}()
	return p, nil
}

func (p *proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig. A process that has ended already gets nothing.
func (p *proc) signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// kill ends the process without warning and waits for its end.
func (p *proc) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// wantExit waits for the process to end by itself with that code.
func (p *proc) wantExit(t testing.TB, code int, within time.Duration) {
	t.Helper()
	select {
	case <-p.done:
		if p.code != code {
			t.Errorf("%s: exit code %d, want %d", p.name, p.code, code)
		}
	case <-time.After(within):
		t.Errorf("%s: still runs after %v", p.name, within)
		p.signal(syscall.SIGQUIT) // its goroutines go to the log
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			p.kill()
		}
	}
}

// wantLog waits for a line that holds all of parts.
func (p *proc) wantLog(t testing.TB, within time.Duration, parts ...string) {
	t.Helper()
	if !p.log.wait(within, parts...) {
		t.Errorf("%s: no line with %q in its log after %v:\n%s", p.name, parts, within, p.log.tail(30))
	}
}

// lineLog keeps what a process prints.
type lineLog struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced at each write
}

func newLineLog() *lineLog { return &lineLog{changed: make(chan struct{})} }

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(b), nil
}

func (l *lineLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// tail returns the last n lines.
func (l *lineLog) tail(n int) string {
	lines := strings.SplitAfter(l.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}

// wait reports whether a line that holds all of parts is there or comes in
// time.
func (l *lineLog) wait(within time.Duration, parts ...string) bool {
	deadline := time.After(within)
	for {
		l.mu.Lock()
		text, changed := l.text.String(), l.changed
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			if holdsAll(line, parts) {
				return true
			}
		}
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

func holdsAll(s string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

// runCommand runs a client to its end and returns what it printed to standard
// output. A failure ends the test with both outputs.
func runCommand(t *testing.T, within time.Duration, name string, args ...string) string {
	t.Helper()
	out, errOut, code := tryCommand(t, within, exec.Command(name, args...))
	if code != 0 {
		t.Fatalf("%s %q: exit code %d\nstdout: %s\nstderr: %s", name, args, code, cut(out), cut(errOut))
	}
	return out
}

// tryCommand runs cmd to its end, which must come in time, and returns its
// outputs and exit code.
func tryCommand(t *testing.T, within time.Duration, cmd *exec.Cmd) (out, errOut string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	late := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%q did not end within %v\nstdout: %s\nstderr: %s", cmd.Args, within, cut(stdout.String()), cut(stderr.String()))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// cut shortens what a failure prints.
func cut(s string) string {
	if len(s) > 2048 {
		return s[:2048] + "…"
	}
	return s
}
