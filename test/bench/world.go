//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/culvert-net/culvert/internal/bench"
)

// A world is what all candidates share: a target, certificates, identities, and
// a folder for their files.
type world struct {
	dir    string
	bin    string // of Culvert's programs
	self   string // this program
	target string
	ids    map[string]string

	stopTarget func()
	serving    sync.WaitGroup
}

func newWorld(ctx context.Context, bin string) (*world, error) {
	dir, err := os.MkdirTemp("", "culvert-bench-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, bin: bin, ids: map[string]string{}}
	if w.self, err = os.Executable(); err == nil {
		err = errors.Join(w.makeCertificates(), w.serveTarget(ctx))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) serveTarget(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.target = ln.Addr().String()
	ctx, w.stopTarget = context.WithCancel(context.WithoutCancel(ctx))
	w.serving.Go(func() {
		if err := new(bench.Target).Serve(ctx, ln); err != nil {
			fmt.Fprintf(os.Stderr, "bench: the target: %v\n", err)
		}
	})
	return nil
}

func (w *world) close() {
	if w.stopTarget != nil {
		w.stopTarget()
		w.serving.Wait()
	}
	_ = os.RemoveAll(w.dir) // what is left is the temporary folder's
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// write makes a file in the world's folder and returns its path.
func (w *world) write(name, text string) (string, error) {
	return w.path(name), os.WriteFile(w.path(name), []byte(text), 0o600)
}

// addr returns a loopback address at which nothing listens now.
func (w *world) addr() (string, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// id returns an identity's identifier, and makes it when its name is first
// said.
func (w *world) id(name string) (string, error) {
	if id, ok := w.ids[name]; ok {
		return id, nil
	}
	out, err := exec.Command(filepath.Join(w.bin, "culvert"), "identity", "new", "-o", w.path(name+".key")).Output()
	if err != nil {
		return "", fmt.Errorf("culvert identity new: %w", err)
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 {
		return "", errors.New("culvert identity new printed nothing")
	}
	w.ids[name] = lines[len(lines)-1]
	return w.ids[name], nil
}

// logs returns the ends of what the processes have printed.
func (w *world) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(w.path("*.log")) // the pattern is well-formed
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 {
			continue
		}
		lines := strings.SplitAfter(string(text), "\n")
		fmt.Fprintf(&b, "%s:\n%s", filepath.Base(f), strings.Join(lines[max(0, len(lines)-6):], ""))
	}
	return b.String()
}

// A chain is the processes of one candidate, while they are started.
type chain struct {
	w       *world
	ctx     context.Context //nolint:containedctx // of one call of world.start, which makes the chain
	name    string
	procs   []*exec.Cmd
	part    int // the process whose time is measured for itself, or -1
	closers []func()
	err     error // the first one: then nothing more is started
}

// start starts a candidate's processes. stop ends them.
func (w *world) start(ctx context.Context, c candidate) (p *bench.Path, stop func(), err error) {
	ch := &chain{w: w, ctx: ctx, name: c.name, part: -1}
	addr := c.start(ch)
	stop = ch.stop
	if ch.err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting %s: %w", c.name, ch.err)
	}
	p = &bench.Path{Name: c.name, Addr: addr, Limit: c.limit}
	if len(ch.procs) > 0 {
		p.Processes = ch.pids
	}
	if ch.part >= 0 {
		pid := ch.procs[ch.part].Process.Pid
		p.Part = func() []int { return []int{pid} }
	}
	return p, stop, nil
}

// run starts a program, with its output in a log of the world's folder.
func (ch *chain) run(program string, args ...string) {
	if ch.err != nil {
		return
	}
	cmd := exec.Command(program, args...) // not of the context: stop ends it, in order
	log, err := os.OpenFile(ch.w.path(fmt.Sprintf("%s-%d-%s.log", ch.name, len(ch.procs), filepath.Base(program))), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		ch.err = err
		return
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if ch.err = cmd.Start(); ch.err == nil {
		ch.procs = append(ch.procs, cmd)
	}
}

// addr returns a free address, and key an identifier; both note errors.
func (ch *chain) addr() string {
	a, err := ch.w.addr()
	ch.note(err)
	return a
}

func (ch *chain) id(name string) string {
	id, err := ch.w.id(name)
	ch.note(err)
	return id
}

func (ch *chain) note(err error) {
	if ch.err == nil {
		ch.err = err
	}
}

// write makes a file of the candidate's and returns its path.
func (ch *chain) write(name, text string) string {
	path, err := ch.w.write(ch.name+"-"+name, text)
	ch.note(err)
	return path
}

// await waits until something listens at an address, for programs that do not
// wait for each other.
func (ch *chain) await(addr string) {
	for ch.err == nil {
		nc, err := new(net.Dialer).DialContext(ch.ctx, "tcp", addr)
		if err == nil {
			_ = nc.Close()
			return
		}
		if ch.ctx.Err() != nil {
			ch.note(context.Cause(ch.ctx))
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// stop ends the processes, the last one first: politely, and after a while not.
func (ch *chain) stop() {
	for _, cmd := range slices.Backward(ch.procs) {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, cmd := range ch.procs {
		kill := time.AfterFunc(3*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ends is not what is measured
		kill.Stop()
	}
	for _, c := range slices.Backward(ch.closers) {
		c()
	}
}

// pids returns the candidate's processes and all that they have started.
func (ch *chain) pids() (pids []int) {
	for _, cmd := range ch.procs {
		pids = append(pids, cmd.Process.Pid)
	}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

// children reads a process's children, of its first thread: none of the
// candidates starts processes from another.
func children(pid int) (pids []int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	for _, f := range bytes.Fields(b) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
