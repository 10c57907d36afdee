package channel

import (
	"io"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestNoTimersLeft ends a channel, by itself and by Close, while all of its
// timers run.
func TestNoTimersLeft(t *testing.T) {
	for _, end := range []func(c *Channel){
		func(c *Channel) { c.Fail(code.Internal, io.ErrUnexpectedEOF) },
		func(c *Channel) { _ = c.Close() },
	} {
		l := newLab(t, 1, Settings{Linger: time.Millisecond}, Timing{}, Limits{})
		x, _ := l.open()
		timers := map[string]*time.Timer{"tick": x.tick, "pacer": x.pacer}
		x.mu.Lock()
		for _, timer := range timers {
			timer.Reset(time.Hour)
		}
		x.ticking = true // as it is while that timer runs
		x.mu.Unlock()
		end(x)
		for name, timer := range timers {
			if timer.Stop() {
				t.Errorf("%s still runs", name)
			}
		}
	}
}
