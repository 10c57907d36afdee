package app

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
)

const (
	// recheckPause is the least time between two times that everything is asked
	// about again: many changes at once are one.
	recheckPause = 200 * time.Millisecond
	// wallTick bounds how long the timer runs: it stands still while a machine
	// sleeps, and the clock can be set.
	wallTick = time.Minute
)

// changes are the reasons for which what lives is asked about again: a revocation
// list, a credential that ends, a channel whose peer has shown other credentials.
// One timer runs for all that ends by itself.
type changes struct {
	idle  atomic.Bool   // nothing changes by itself: nobody need remember anything
	times atomic.Uint64 // that everything was asked about again

	wake   chan struct{} // capacity 1: something has changed for all
	sooner chan struct{} // capacity 1: next or moved has changed

	mu    sync.Mutex
	next  time.Time // when something ends; zero: nothing does
	moved map[*channel.Channel]struct{}
}

func (c *changes) init() {
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

// follow calls all each time that everything is to be asked about again, and some
// for channels alone, until ctx ends.
func (c *changes) follow(ctx context.Context, all func(), some func(map[*channel.Channel]struct{})) {
	t := time.NewTimer(wallTick)
	defer t.Stop()
	for {
		c.mu.Lock()
		next, moved := c.next, c.moved
		c.moved = map[*channel.Channel]struct{}{}
		c.mu.Unlock()
		if len(moved) > 0 {
			some(moved)
		}
		now := time.Now().Round(0)
		wait := wallTick
		if !next.IsZero() {
			wait = min(wait, max(0, next.Sub(now)))
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-c.sooner:
			continue
		case <-t.C:
			if next.IsZero() || time.Now().Round(0).Before(next) {
				continue // a tick
			}
		case <-c.wake:
		}
		c.mu.Lock()
		c.next = time.Time{}
		c.mu.Unlock()
		c.times.Add(1)
		all()
		if !sleep(ctx, recheckPause) {
			return
		}
	}
}
