package line

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// A way is one direction of one conn: take reads what comes and books its time
// on the lane, bring writes it when that time has come.
type way struct {
	lane     *lane
	src, dst net.Conn
	other    *way
	cut      <-chan struct{} // closed when the line is

	broken atomic.Bool // dst takes nothing any more

	mu      sync.Mutex
	changed sync.Cond
	queue   []piece
	held    int  // bytes in queue
	brought bool // bring has its last piece
}

// A piece is some bytes, or the end of a way.
type piece struct {
	b   []byte // nil for an end
	err error  // of an end: io.EOF for a clean one
	due time.Time
}

func newWay(a *lane, src, dst net.Conn, cut <-chan struct{}) *way {
	w := &way{lane: a, src: src, dst: dst, cut: cut}
	w.changed.L = &w.mu
	if c, ok := src.(*net.TCPConn); ok {
		// What the kernel holds waits before the line, in a buffer that the
		// line does not have. With less than a segment of the loopback's it stalls.
		_ = c.SetReadBuffer(max(2*a.piece(), maxPiece))
	}
	return w
}

// take reads src as fast as the lane has room.
func (w *way) take() {
	buf := make([]byte, maxPiece)
	for {
		n, err := w.src.Read(buf[:w.lane.piece()])
		in, out := w.lane.enter(n, time.Now())
		if n > 0 {
			_ = w.push(piece{b: slices.Clone(buf[:n]), due: out})
		}
		if err != nil {
			_ = w.push(piece{err: err, due: out})
			return
		}
		w.sleep(in)
		w.awaitRoom()
	}
}

// push has bring bring p, and reports whether it still does so.
func (w *way) push(p piece) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.brought {
		return false
	}
	w.queue = append(w.queue, p)
	w.held += len(p.b)
	w.changed.Broadcast()
	return true
}

// awaitRoom waits while dst does not take what is long due.
func (w *way) awaitRoom() {
	most := w.lane.hold()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.held > most && !w.brought {
		w.changed.Wait()
	}
}

// next returns the piece that is due next.
func (w *way) next() piece {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) == 0 {
		w.changed.Wait()
	}
	p := w.queue[0]
	w.queue[0] = piece{}
	w.queue = w.queue[1:]
	if p.err != nil {
		w.brought = true
		w.changed.Broadcast()
	}
	return p
}

// bring writes each piece to dst when it is due, up to the end.
func (w *way) bring() {
	for {
		p := w.next()
		w.sleep(p.due)
		if p.err != nil {
			w.finish(p.err)
			return
		}
		// What cannot be written any more is thrown away, so that src is read up
		// to its end.
		if !w.broken.Load() {
			if _, err := w.dst.Write(p.b); err != nil {
				w.breakOff(err)
			}
		}
		w.mu.Lock()
		w.held -= len(p.b)
		w.changed.Broadcast()
		w.mu.Unlock()
	}
}

// breakOff tells src, when that can be known there, that dst takes nothing any more:
// by the other way, or itself if that has ended cleanly before.
func (w *way) breakOff(err error) {
	w.broken.Store(true)
	_, out := w.other.lane.enter(0, time.Now())
	if !w.other.push(piece{err: err, due: out}) {
		w.sleep(out)
		reset(w.src)
	}
}

// finish passes the end of src on.
func (w *way) finish(err error) {
	// The kernel says only once that a conn was reset, to whoever asks first:
	// where that was the other way's write, a read is told of a clean end.
	if err == io.EOF && !w.other.broken.Load() {
		if cw, ok := w.dst.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
			return
		}
	}
	reset(w.dst)
}

// sleep waits until t, or until the line is closed.
func (w *way) sleep(t time.Time) {
	d := time.Until(t)
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.cut:
	}
}

func reset(c net.Conn) { _ = sock.ResetClose(c) }
