package pump

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the room asked for in a pipe. An unprivileged user gets 64 MiB
	// of pipes in all (pipe-user-pages-soft, pipe(7)), so this is a compromise
	// between chunks that are long and pipes that are many.
	pipeSize = 256 << 10
	// minPipe is what a pipe must hold to be worth its two system calls. Past
	// the user's limit the kernel makes pipes of one or two pages.
	minPipe = 64 << 10
	// maxIdlePipes are kept for the next chunk.
	maxIdlePipes = 32
	// After a pipe could not be had, none is asked for during this time.
	pipePause = time.Second
)

// Pipes is a store of empty pipes for [Splice], shared by any number of
// copies. The zero value is ready. Close gives what it holds back to the
// system.
type Pipes struct {
	mu      sync.Mutex
	idle    []*pipe // the last one used is the next
	closed  bool
	noneTil time.Time
}

type pipe struct{ r, w int }

// get returns an empty pipe, or nil when there is none to be had.
func (p *Pipes) get() *pipe {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		pp := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return pp
	}
	pause := !p.noneTil.IsZero() && time.Now().Before(p.noneTil)
	p.mu.Unlock()
	if pause {
		return nil
	}
	pp := newPipe()
	if pp == nil {
		p.mu.Lock()
		p.noneTil = time.Now().Add(pipePause)
		p.mu.Unlock()
	}
	return pp
}

// put takes back an empty pipe.
func (p *Pipes) put(pp *pipe) {
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < maxIdlePipes
	if keep {
		p.idle = append(p.idle, pp)
	}
	p.mu.Unlock()
	if !keep {
		p.discard(pp)
	}
}

// discard closes a pipe that may hold bytes.
func (p *Pipes) discard(pp *pipe) {
	_ = unix.Close(pp.r)
	_ = unix.Close(pp.w)
}

// Close closes the pipes that are not in use now, and the others when they
// come back.
func (p *Pipes) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, pp := range idle {
		p.discard(pp)
	}
}

func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	pp := &pipe{r: fds[0], w: fds[1]}
	// A refusal leaves the pipe as large as it was, which is looked at below.
	_, _ = unix.FcntlInt(uintptr(pp.w), unix.F_SETPIPE_SZ, pipeSize)
	if size, err := unix.FcntlInt(uintptr(pp.w), unix.F_GETPIPE_SZ, 0); err == nil && size < minPipe {
		_ = unix.Close(pp.r)
		_ = unix.Close(pp.w)
		return nil
	}
	return pp
}
