package app

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
)

const (
	// recheckPause is the least time between two times that everything is asked
	// about again: many changes at once are one, and whoever can bring changes about
	// cannot keep this process busy.
	recheckPause = time.Second
	// wallTick bounds how long the timer runs while something is due: it stands still
	// while a machine sleeps, and the clock can be set. With recheckPause it is less
	// than the 5 s within which what ends is to be cut.
	wallTick = 3 * time.Second
	// policyTick is how often everything is asked about again where a policy looks at
	// the time.
	policyTick = time.Minute
)

// changes are the reasons for which what lives is asked about again: a revocation
// list, a credential that ends, a channel whose peer has shown other credentials, the
// time where a policy looks at it. One timer runs for all that ends by itself, and none
// where nothing does.
type changes struct {
	idle  atomic.Bool      // nothing changes by itself: nobody need remember anything
	wall  func() time.Time // the wall clock, without a monotonic part; tests have their own
	times atomic.Uint64    // that everything was asked about again
	timed func() bool      // whether a policy looks at the time now; nil: none ever does
	every time.Duration    // how often everything is asked about again while one does

	wake   chan struct{} // capacity 1: something has changed for all
	sooner chan struct{} // capacity 1: next or moved has changed

	mu    sync.Mutex
	next  time.Time // when something ends; zero: nothing does
	moved map[*channel.Channel]struct{}
}

func (c *changes) init() {
	if c.wall == nil {
		c.wall = func() time.Time { return time.Now().Round(0) }
	}
	if c.every == 0 {
		c.every = policyTick
	}
	c.wake, c.sooner = make(chan struct{}, 1), make(chan struct{}, 1)
	c.moved = map[*channel.Channel]struct{}{}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// changed has everything asked about again.
func (c *changes) changed() { poke(c.wake) }

// due has everything asked about again at a time, unless it is zero. Whoever is
// asked about says when that is to be again.
func (c *changes) due(at time.Time) {
	if at.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next.IsZero() || at.Before(c.next) {
		c.next = at
		poke(c.sooner)
	}
}

// shown has one channel asked about again, whose peer may have shown other
// credentials. It may be called with the channel's lock held.
func (c *changes) shown(ch *channel.Channel) {
	if c.idle.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved[ch] = struct{}{}
	poke(c.sooner)
}

// repeat has everything asked about again once its time has come anew.
func (c *changes) repeat() {
	if c.timed != nil && c.timed() {
		c.due(c.wall().Add(c.every))
	}
}

// follow calls all each time that everything is to be asked about again, and some
// for channels alone, until ctx ends.
func (c *changes) follow(ctx context.Context, all func(), some func(map[*channel.Channel]struct{})) {
	t := time.NewTimer(0)
	defer t.Stop()
	c.repeat()
	for {
		c.mu.Lock()
		next, moved := c.next, c.moved
		c.moved = map[*channel.Channel]struct{}{}
		c.mu.Unlock()
		if len(moved) > 0 {
			some(moved)
		}
		var tick <-chan time.Time // none while nothing is due
		if !next.IsZero() {
			t.Reset(min(wallTick, max(0, next.Sub(c.wall()))))
			tick = t.C
		}
		select {
		case <-ctx.Done():
			return
		case <-c.sooner:
			continue
		case <-tick:
			if c.wall().Before(next) {
				continue
			}
		case <-c.wake:
		}
		c.mu.Lock()
		c.next = time.Time{}
		c.mu.Unlock()
		c.times.Add(1)
		c.repeat()
		all()
		if !wait.Sleep(ctx, recheckPause) {
			return
		}
	}
}
