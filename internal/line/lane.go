package line

import (
	"sync"
	"time"
)

// The pieces in which bytes are carried: 1 ms of the rate, in these bounds.
const (
	pieceTime = time.Millisecond
	minPiece  = 1500
	maxPiece  = 64 << 10
)

// A lane is one direction of a line: a queue that is known by the time at which
// it will be empty. Its bytes are with the conns that they are of.
type lane struct {
	mu    sync.Mutex
	cfg   Config
	empty time.Time // when all that has entered will have left the buffer
	last  time.Time // when the latest piece has entered, or will
}

func (a *lane) set(c Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cfg = c
}

// time returns how long n bytes take to leave the buffer.
func (c Config) time(n int) time.Duration {
	return time.Duration(float64(n) * 8 / float64(c.Rate) * float64(time.Second))
}

// piece returns how many bytes are carried at a time.
func (a *lane) piece() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(max(int(a.cfg.Rate/8*int64(pieceTime)/int64(time.Second)), minPiece), maxPiece)
}

// hold returns how many bytes of a conn the line may have in all: those that
// wait, those under way, and some that are late. Only a far end that does not
// read keeps more back.
func (a *lane) hold() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg.Buffer + 2*int(float64(a.cfg.Rate)/8*a.cfg.Delay.Seconds()) + 1<<20
}

// enter puts n bytes that have come now at the end of the queue. It returns
// when there is room for them, before which nothing else may be taken from
// their conn, and when they come out at the far end.
func (a *lane) enter(n int, now time.Time) (in, out time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in = now
	if room := a.empty.Add(-a.cfg.time(max(0, a.cfg.Buffer-n))); in.Before(room) {
		in = room
	}
	if in.Before(a.last) {
		in = a.last
	}
	a.last = in
	if a.empty.Before(in) {
		a.empty = in
	}
	a.empty = a.empty.Add(a.cfg.time(n))
	return in, a.empty.Add(a.cfg.Delay)
}
