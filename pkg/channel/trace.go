package channel

import "time"

// maxNews bounds what a slow Trace has still to be told of one channel.
const maxNews = 64

// A Trace is told what happens to channels, by funcs of which any may be nil.
// Of one channel they are called one after the other, in the order of what has
// happened, soon after it and without any lock: one that blocks holds up nothing
// but the return of the channel's Run, which it must not wait for. While it does,
// the last 64 things that it has not been told of are kept, and no more.
type Trace struct {
	// Lost says that c's path has ended, over the initiator's route (-1 at the
	// responder); the channel goes on without one.
	Lost func(c *Channel, route int, err error)
	// Moved says that c has another path, and why.
	Moved func(c *Channel, m Move)
}

// A Cause is why a channel changed its path: a stable word, fit for a metric
// label.
type Cause string

const (
	// Lost is a path that had ended by itself.
	Lost Cause = "lost"
	// Renewed is a handshake for new keys.
	Renewed Cause = "renewed"
	// Returned is a better route that works again.
	Returned Cause = "returned"
	// Asked is the peer's or the program's wish, when a relay drains, or the path's
	// route is listed no more.
	Asked Cause = "asked"
	// Moved is the responder's word for a path that takes over from one that
	// it believed in: the initiator knows why.
	Moved Cause = "moved"
)

// Causes returns all of them.
func Causes() []Cause { return []Cause{Lost, Renewed, Returned, Asked, Moved} }

// A Move is a channel's change of path.
type Move struct {
	Cause  Cause
	Down   time.Duration // how long there was no path
	Resent int64         // bytes that will be sent again
	Route  int           // the initiator's route; -1 at the responder
	Via    string        // what the responder's Table was told of the path
}

// tellLocked has f called without mu, behind what was to be told before. The
// channel must not be over yet.
func (c *Channel) tellLocked(f func()) {
	if len(c.news) == maxNews {
		c.news = c.news[1:]
	}
	c.news = append(c.news, f)
	if !c.telling {
		c.telling = true
		c.background.Go(c.tell)
	}
}

func (c *Channel) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.news) > 0 {
		f := c.news[0]
		c.news = c.news[1:]
		c.mu.Unlock()
		f()
		c.mu.Lock()
	}
	c.news, c.telling = nil, false
}
