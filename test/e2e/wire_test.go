//go:build e2e && linux

package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"golang.org/x/time/rate"
)

// The directions of a wire: up is away from who has connected.
const (
	up = iota
	down
)

// wireBuffer bounds what waits in the kernel on each side of a wire: a slow link
// is not to look fast for the first megabytes.
const wireBuffer = 64 << 10

// A wire is a TCP proxy that does what networks do: it loses everything of one
// direction or both for a while, ends connections with a reset, is slow.
type wire struct {
	addr, target string
	life         context.Context
	limits       [2]*rate.Limiter // nil: none

	mu      sync.Mutex
	holes   [2]bool
	changed chan struct{} // closed, and made anew, when holes changes
	conns   map[*wireConn]struct{}
}

// A wireConn is one connection through a wire: sides[up] is towards the target.
type wireConn struct {
	sides [2]*net.TCPConn
	moved int // bytes, guarded by the wire's mu
}

// wire starts a wire to the target, which need not listen yet. It ends after the
// world's programs.
func (w *world) wire(target string) *wire { w.t.Helper(); return w.slowWire(target, 0, 0) }

// slowWire limits the bytes per second in each direction, for all connections
// together; 0 means no limit.
func (w *world) slowWire(target string, upRate, downRate int) *wire {
	w.t.Helper()
	wire, end := newWire(w.t, target, upRate, downRate)
	w.after = append(w.after, end)
	return wire
}

func newWire(t *testing.T, target string, upRate, downRate int) (w *wire, end func()) {
	t.Helper()
	life, cancel := context.WithCancel(context.Background())
	ln := listenTCP(t)
	w = &wire{addr: ln.Addr().String(), target: target, life: life, changed: make(chan struct{}), conns: map[*wireConn]struct{}{}}
	for dir, r := range []int{upRate, downRate} {
		if r > 0 {
			w.limits[dir] = rate.NewLimiter(rate.Limit(r), 4<<10)
		}
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(c.(*net.TCPConn)) })
		}
	})
	return w, func() {
		cancel()
		ln.Close()
		w.cut(func(*wireConn) bool { return true })
		running.Wait()
	}
}

// hole makes the wire lose everything in those directions, until the next call.
// What is on its way comes when the hole has gone, as TCP sends it again.
func (w *wire) hole(dirs ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holes = [2]bool{}
	for _, dir := range dirs {
		w.holes[dir] = true
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// await waits until the direction is open, and reports whether the wire still
// is.
func (w *wire) await(dir int) bool {
	for {
		w.mu.Lock()
		hole, changed := w.holes[dir], w.changed
		w.mu.Unlock()
		if !hole {
			return w.life.Err() == nil
		}
		select {
		case <-changed:
		case <-w.life.Done():
			return false
		}
	}
}

// cut resets the connections that are meant, and returns how many there were.
func (w *wire) cut(meant func(*wireConn) bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if meant(c) {
			n++
			c.reset()
			delete(w.conns, c)
		}
	}
	return n
}

// cutOne resets one connection: most times the one that has carried most, which
// is a path, else any. It reports whether there was one.
func (w *wire) cutOne() bool {
	w.mu.Lock()
	var pick *wireConn
	most := rand.IntN(4) > 0
	for c := range w.conns { // in random order
		if pick == nil || most && c.moved > pick.moved {
			pick = c
		}
	}
	w.mu.Unlock()
	return w.cut(func(c *wireConn) bool { return c == pick }) > 0
}

func (c *wireConn) reset() {
	for _, side := range c.sides {
		_ = side.SetLinger(0)
		side.Close()
	}
}

func (w *wire) carry(client *net.TCPConn) {
	reset := func() {
		_ = client.SetLinger(0)
		client.Close()
	}
	if !w.await(up) {
		reset()
		return
	}
	var d net.Dialer
	nc, err := d.DialContext(w.life, "tcp", w.target)
	if err != nil {
		w.await(down)
		reset()
		return
	}
	c := &wireConn{sides: [2]*net.TCPConn{nc.(*net.TCPConn), client}}
	for _, side := range c.sides {
		_ = side.SetReadBuffer(wireBuffer)
		_ = side.SetWriteBuffer(wireBuffer)
	}
	w.mu.Lock()
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, c)
	}()
	if w.life.Err() != nil { // its end may not have seen c
		c.reset()
	}
	var other sync.WaitGroup
	other.Go(func() { w.pump(c, down) })
	w.pump(c, up)
	other.Wait()
	for _, side := range c.sides {
		side.Close()
	}
}

// pump moves one direction's bytes, and its end.
func (w *wire) pump(c *wireConn, dir int) {
	from, to := c.sides[1-dir], c.sides[dir]
	buf := make([]byte, 32<<10)
	if w.limits[dir] != nil {
		buf = buf[:4<<10]
	}
	for w.await(dir) {
		n, err := from.Read(buf)
		if !w.await(dir) {
			return
		}
		if l := w.limits[dir]; l != nil && l.WaitN(w.life, n) != nil {
			return
		}
		w.mu.Lock()
		c.moved += n
		w.mu.Unlock()
		if _, werr := to.Write(buf[:n]); werr != nil {
			w.await(1 - dir) // the news of it comes from there
			c.reset()
			return
		}
		switch {
		case err == io.EOF:
			_ = to.CloseWrite()
			return
		case err != nil:
			c.reset()
			return
		}
	}
}
