package tunnel

import (
	"fmt"
	"sync"

	"github.com/culvert-net/culvert/pkg/code"
)

const (
	initialWindow = 256 << 10 // yamux's, for every stream
	// maxWindow is what a stream's window is raised to, where the settings do not
	// say less, and what a reader that has stalled can cost. The mux renews a window when half of it is used: half has
	// to hold what is under way on a long line, 2.5 MB at 200 Mbit/s and 100 ms.
	maxWindow = 8 << 20
	// maxUpdate is the most that one window update may allow.
	maxUpdate = 4 << 20
	// The last bytes of a window are kept for FIN and RST, so that these never
	// wait for a reader.
	windowReserve = 16
)

// windows follows the send window of each stream from the headers that cross
// the adapter. yamux does not tell it, and a stream that waits for window inside
// yamux would hold its place at the gate meanwhile.
type windows struct {
	mu   sync.Mutex
	byID map[uint32]*window
}

// A window is what one stream may still send, and whether the mux still knows
// the stream: it does until both sides have closed it.
type window struct {
	mu      sync.Mutex
	n       int64
	allowed int64         // what the peer may still send
	opened  chan struct{} // capacity 1: n has grown
	unread  int64         // what the mux was given and the stream has not read
	came    uint64        // what the mux was given
	ignored bool          // nothing is read any more: the mux is given nothing
	ended   bool          // the mux has ended, or is about to end, what comes
	resting *Stream       // whose delivery goes on when something comes

	// Guarded by windows.mu.
	near, far bool   // closed by this side, by the peer
	release   func() // called when both have, nil for nothing

	early early // guarded by Session.mu
}

// early is what the control stream said of a stream before the session had it
// from the mux, which the peer's frames inside the stream do not wait for.
type early struct {
	aborted, stopped bool
	code             code.Code
}

// open begins to follow a stream. It fails for one that is followed already,
// and at limit streams.
func (ws *windows) open(id uint32, limit int) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byID == nil {
		ws.byID = make(map[uint32]*window)
	}
	if _, ok := ws.byID[id]; ok {
		return fmt.Errorf("%w: stream %d opened twice", errProtocol, id)
	}
	if len(ws.byID) >= limit {
		return fmt.Errorf("%w: more than %d streams", errProtocol, limit)
	}
	ws.byID[id] = &window{n: initialWindow, allowed: initialWindow, opened: make(chan struct{}, 1)}
	return nil
}

func (ws *windows) get(id uint32) *window {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.byID[id]
}

// onGone has release called when the mux no longer knows the stream, at once if
// that is so already.
func (ws *windows) onGone(id uint32, release func()) *window {
	ws.mu.Lock()
	w := ws.byID[id]
	if w != nil {
		w.release = release
	}
	ws.mu.Unlock()
	if w == nil {
		release()
		w = &window{opened: make(chan struct{}, 1), ended: true}
	}
	return w
}

// closed says that one side, or both, has closed the stream. It reports false
// when the peer has done so before.
func (ws *windows) closed(id uint32, near, far bool) bool {
	ws.mu.Lock()
	w := ws.byID[id]
	if w == nil || far && w.far {
		ws.mu.Unlock()
		return w == nil
	}
	w.near, w.far = w.near || near, w.far || far
	gone := w.near && w.far
	if gone {
		delete(ws.byID, id)
	}
	ws.mu.Unlock()
	if far {
		w.end()
	}
	if gone && w.release != nil {
		w.release()
	}
	return true
}

func (ws *windows) count() int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.byID)
}

// grow adds what the peer allows. Updates for a stream that is gone are late,
// not wrong.
func (ws *windows) grow(id, delta uint32) error {
	w := ws.get(id)
	if w == nil || delta == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n += int64(delta); w.n > 1<<31 {
		return fmt.Errorf("%w: window of %d bytes", errProtocol, w.n)
	}
	select {
	case w.opened <- struct{}{}:
	default:
	}
	return nil
}

// allow adds what this side lets the peer send, if anybody is to read it.
func (ws *windows) allow(id, delta uint32) bool {
	w := ws.get(id)
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ignored {
		return false
	}
	w.allowed += int64(delta)
	return true
}

// received uses what the peer may send, and reports whether nobody will read it.
// The mux checks this too, but only we can end the session for it without its
// spin (adapter.freed).
func (ws *windows) received(id, n uint32) (ignored bool, err error) {
	w := ws.get(id)
	if w == nil {
		return true, nil // late
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.allowed -= int64(n); w.allowed < 0 {
		return true, fmt.Errorf("%w: data beyond the window of stream %d", errProtocol, id)
	}
	if w.ignored {
		return true, nil
	}
	w.unread += int64(n)
	w.came += uint64(n)
	w.wakeLocked()
	return false, nil
}

// cameIn returns how many bytes have come.
func (w *window) cameIn() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.came
}

// ignore says that nothing is read of what comes from now on.
func (w *window) ignore() {
	w.mu.Lock()
	w.ignored = true
	w.mu.Unlock()
}

// read says that the stream has read n bytes of what has come.
func (w *window) read(n int) {
	w.mu.Lock()
	w.unread -= int64(n)
	w.mu.Unlock()
}

// end says that nothing comes any more.
func (w *window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.wakeLocked()
}

// drained reports whether all that has come was read.
func (w *window) drained() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unread <= 0
}

// rest has st's delivery started when something comes. It reports false when
// something has.
func (w *window) rest(st *Stream) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unread > 0 || w.ended {
		return false
	}
	w.resting = st
	return true
}

// wake starts a delivery that rests.
func (w *window) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeLocked()
}

func (w *window) wakeLocked() {
	if st := w.resting; st != nil {
		w.resting = nil
		go st.deliver() // until it rests or is done, for which Deliver's caller waits
	}
}

// available returns how many bytes of DATA frames may be sent now.
func (w *window) available() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(max(0, w.n-windowReserve))
}

// take uses n bytes, which are there: only one frame of a stream is sent at a
// time. It reports false for the reserve's end.
func (w *window) take(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n < int64(n) {
		return false
	}
	w.n -= int64(n)
	return true
}
