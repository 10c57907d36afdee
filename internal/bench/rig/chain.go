package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A Chain is the processes of one candidate while they are started. After an
// error its methods do nothing.
type Chain struct {
	rig    *Rig
	ctx    context.Context //nolint:containedctx // of one call of Rig.Start, which makes the chain
	name   string
	procs  []*exec.Cmd
	part   int // the process whose time is measured for itself
	closes []func()
	err    error // the first
}

// Name returns the candidate's name.
func (c *Chain) Name() string { return c.name }

// Context ends when starting is to be given up.
func (c *Chain) Context() context.Context { return c.ctx }

// Target returns the target's address.
func (c *Chain) Target() string { return c.rig.target }

// Path returns the path of a file that all candidates share.
func (c *Chain) Path(name string) string { return c.rig.Path(name) }

// OwnPath returns the path of a file of the candidate's own.
func (c *Chain) OwnPath(name string) string { return c.rig.Path(c.name + "-" + name) }

// Write makes a file of the candidate's own and returns its path.
func (c *Chain) Write(name, text string) string {
	path, err := c.rig.Write(c.name+"-"+name, text)
	c.Fail(err)
	return path
}

// Fail notes an error, if err is one.
func (c *Chain) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// OnStop has f called after the processes have ended.
func (c *Chain) OnStop(f func()) { c.closes = append(c.closes, f) }

// Addr returns a loopback address at which nothing listens now.
func (c *Chain) Addr() string {
	ln, err := listen(c.ctx)
	if err != nil {
		c.Fail(err)
		return ""
	}
	c.Fail(ln.Close())
	return ln.Addr().String()
}

// Run starts a program. What it prints goes to a log.
func (c *Chain) Run(program string, args ...string) {
	if c.err != nil {
		return
	}
	path := c.OwnPath(fmt.Sprintf("%d-%s.log", len(c.procs), filepath.Base(program)))
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fail(err)
		return
	}
	defer func() { _ = log.Close() }() // the process has its own
	//nolint:gosec,noctx // the candidates' programs are this program's choice; stop ends them, in order
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		c.Fail(err)
		return
	}
	c.procs = append(c.procs, cmd)
}

// RunPart is Run for the process whose time is also measured for itself; the
// last one counts.
func (c *Chain) RunPart(program string, args ...string) {
	c.Run(program, args...)
	if c.err == nil {
		c.part = c.procs[len(c.procs)-1].Process.Pid
	}
}

// Await waits until something listens at an address, for programs that do not
// wait for each other.
func (c *Chain) Await(addr string) {
	until := time.Now().Add(readyTime)
	for c.err == nil {
		nc, err := new(net.Dialer).DialContext(c.ctx, "tcp", addr)
		switch {
		case err == nil:
			_ = nc.Close() // nothing was said
			return
		case c.ctx.Err() != nil:
			c.Fail(context.Cause(c.ctx))
		case time.Now().After(until):
			c.Fail(fmt.Errorf("nothing listens at %s after %v: %w", addr, readyTime, err))
		default:
			time.Sleep(time.Millisecond) // processes of others have no event to wait for
		}
	}
}

// endTime is how long a process may take to end.
const endTime = 3 * time.Second

// stop ends the processes, the last one first: politely, and after a while not.
func (c *Chain) stop() {
	for _, cmd := range slices.Backward(c.procs) {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			_ = cmd.Process.Kill() // where there are no signals; or it has ended
		}
	}
	for _, cmd := range c.procs {
		kill := time.AfterFunc(endTime, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ends is not what is measured
		kill.Stop()
	}
	for _, f := range slices.Backward(c.closes) {
		f()
	}
}

// pids returns the candidate's processes and all that they have started.
func (c *Chain) pids() (pids []int) {
	for _, cmd := range c.procs {
		pids = append(pids, cmd.Process.Pid)
	}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}
