//go:build e2e && linux

package e2ecompose

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An engine is a dockerd of the tests' own, in namespaces of its own: no
// process, mount, network or firewall rule of it is left when it has ended.
type engine struct {
	dir    string
	socket string
	cmd    *exec.Cmd     // unshare, whose only child is dockerd
	done   chan struct{} // closed when cmd has been waited for
}

// startEngine starts a dockerd whose state is below dir, and waits until it
// answers. It needs root.
func startEngine(dir string) (*engine, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	e := &engine{dir: dir, socket: filepath.Join(dir, "docker.sock"), done: make(chan struct{})}
	e.cmd = exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-ec",
		`ip link set lo up; exec dockerd --host "unix://$0/docker.sock" --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --bridge none`, dir)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(e.done)
		_ = e.cmd.Wait()
	}()
	answers := func() bool { return exec.Command("docker", "--host", "unix://"+e.socket, "info").Run() == nil }
	if !eventually(2*time.Minute, func() bool { return e.ended() || answers() }) || e.ended() {
		e.stop()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("dockerd does not answer:\n%s", text)
	}
	return e, nil
}

func (e *engine) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// stop ends dockerd, which ends its containers, and removes its state.
func (e *engine) stop() {
	pid := strconv.Itoa(e.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if child, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
		_ = syscall.Kill(child, syscall.SIGTERM)
	}
	select {
	case <-e.done:
	case <-time.After(time.Minute):
		_ = e.cmd.Process.Kill() // and what it has started, by --kill-child
		<-e.done
	}
	// Mounts go with their namespace, shortly after its last process.
	if !eventually(30*time.Second, func() bool { return os.RemoveAll(e.dir) == nil }) {
		fmt.Fprintln(os.Stderr, "the engine's folder cannot be removed:", e.dir)
	}
}

// eventually asks until the answer is yes, and reports whether it was in time.
func eventually(within time.Duration, ask func() bool) bool {
	for deadline := time.Now().Add(within); !ask(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
