package tunnel

import (
	"sync"
	"time"
)

// A deadline is a time after which a channel is closed. The zero value has
// none.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // closed when the time has passed; replaced when it is moved
}

// set moves the deadline; a zero t removes it.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // its func is running, or has run
	}
	d.timer = nil
	if d.done != nil && isClosed(d.done) {
		d.done = nil
	}
	if t.IsZero() {
		return
	}
	if d.done == nil {
		d.done = make(chan struct{})
	}
	if left := time.Until(t); left > 0 {
		done := d.done
		d.timer = time.AfterFunc(left, func() { close(done) })
		return
	}
	close(d.done)
}

// passed returns a channel that is closed when the deadline has passed. It
// stays good when the deadline is moved before that.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

// expired reports whether the deadline has passed. It makes no channel, which
// most streams never need.
func (d *deadline) expired() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done != nil && isClosed(d.done)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
