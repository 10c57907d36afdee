// Package rig owns the processes that are measured: it starts the parts of a
// path to one target, each a process of its own, and ends them. What is started
// beside Culvert's own programs is handed in. It measures nothing.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/bench"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Rig is what all paths share: a target, identities, and a folder for files.
type Rig struct {
	program func(kind string) []string
	dir     string
	target  string

	mu  sync.Mutex // guards ids
	ids map[string]string

	stopTarget func()
	serving    sync.WaitGroup
}

// New makes a temporary folder and starts a target on the loopback. program
// says how Culvert's inlet, outlet or relay is called, before its flags.
func New(ctx context.Context, program func(kind string) []string) (*Rig, error) {
	dir, err := os.MkdirTemp("", "culvert-bench-")
	if err != nil {
		return nil, err
	}
	r := &Rig{program: program, dir: dir, ids: map[string]string{}, stopTarget: func() {}}
	if err := r.serveTarget(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Rig) serveTarget(ctx context.Context) error {
	ln, err := listen(ctx)
	if err != nil {
		return err
	}
	r.target = ln.Addr().String()
	ctx, r.stopTarget = context.WithCancel(context.WithoutCancel(ctx))
	r.serving.Go(func() { _ = bench.Serve(ctx, ln) }) // a case that does not reach it says so
	return nil
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

// Target returns the target's address.
func (r *Rig) Target() string { return r.target }

// Close ends the target and removes the folder. All chains must have ended.
func (r *Rig) Close() {
	r.stopTarget()
	r.serving.Wait()
	_ = os.RemoveAll(r.dir) // what is left is the temporary folder's
}

// Path returns the path of a file in the folder.
func (r *Rig) Path(name string) string { return filepath.Join(r.dir, name) }

// Write makes a file in the folder and returns its path.
func (r *Rig) Write(name, text string) (string, error) {
	return r.Path(name), os.WriteFile(r.Path(name), []byte(text), 0o600)
}

// id returns an identity's identifier, and makes it when its name is first
// said.
func (r *Rig) id(name string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.ids[name]; ok {
		return id, nil
	}
	id, err := identity.New(time.Now())
	if err != nil {
		return "", err
	}
	if err := id.WriteFile(r.key(name)); err != nil {
		return "", err
	}
	r.ids[name] = id.Identifier().String()
	return r.ids[name], nil
}

func (r *Rig) key(name string) string { return r.Path(name + ".key") }

// Logs returns the last lines of what the processes have printed.
func (r *Rig) Logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(r.Path("*.log")) // the pattern is well-formed
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

// A Candidate is a way to carry TCP to the target.
type Candidate struct {
	Name  string
	Note  string // what it is, for the report
	Limit int    // connections at once; 0 for no limit of its own
	// Start starts its processes and returns where to dial.
	Start func(c *Chain) (addr string)
}

// Start starts a candidate. stop ends it; it is not nil without an error.
func (r *Rig) Start(ctx context.Context, c Candidate) (p *bench.Path, stop func(), err error) {
	ch := &Chain{rig: r, ctx: ctx, name: c.Name}
	addr := c.Start(ch)
	if ch.err != nil {
		ch.stop()
		return nil, nil, fmt.Errorf("starting %s: %w", c.Name, ch.err)
	}
	p = &bench.Path{Name: c.Name, Addr: addr, Limit: c.Limit}
	if len(ch.procs) > 0 {
		p.Processes = ch.pids
	}
	if ch.part != 0 {
		pids := []int{ch.part}
		p.Part = func() []int { return pids }
	}
	return p, ch.stop, nil
}

// readyTime is how long a candidate may take until it carries traffic.
const readyTime = 20 * time.Second

// StartAll starts all candidates and waits until each carries traffic. stop
// ends them; it is to be called in any case.
func (r *Rig) StartAll(ctx context.Context, cs []Candidate) (paths []*bench.Path, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for _, c := range cs {
		p, s, err := r.Start(ctx, c)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, s)
		if err := bench.AwaitAnswer(ctx, p, readyTime); err != nil {
			return nil, stop, errors.Join(err, errors.New(r.Logs()))
		}
		paths = append(paths, p)
	}
	return paths, stop, nil
}
