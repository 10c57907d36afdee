package channel

import (
	"testing"
	"time"
)

// A backPeer is what a backQueue is told of its peer's probes, whose clock differs.
type backPeer struct {
	backQueue
	now    time.Duration
	offset uint64
}

const backOffset = 5 * time.Hour // between the two clocks

// probes has n probes come, one each gap, behind so much data each, that have waited
// for wait.
func (b *backPeer) probes(n int, gap, wait time.Duration, data uint64) {
	for range n {
		b.now += gap
		b.offset += data
		b.pinged(uint64(b.now-wait+backOffset), b.offset, b.now)
	}
}

// TestBackQueueSlow has the peer's data wait on a line of 32 kbit/s, where a probe
// follows on half a second of data: each of its waits counts until the next, and for
// long, and no more once none comes.
func TestBackQueueSlow(t *testing.T) {
	const gap, wait = 512 * time.Millisecond, 2 * time.Second
	var b backPeer
	b.probes(1, gap, 0, 0)
	b.probes(30, gap, wait, minStride)
	for _, d := range []time.Duration{0, gap / 2, gap - 1} {
		if got := b.at(b.now+d, time.Hour); got != wait {
			t.Errorf("%s after a probe that has waited for %s a PONG has, it seems, for %s", d, wait, got)
		}
	}
	if got := b.at(b.now+gap/2, time.Second); got != time.Second {
		t.Errorf("a PONG has waited for %s, want the second that its round trip leaves", got)
	}
	if got := b.at(b.now+3*gap, time.Hour); got != 0 {
		t.Errorf("a PONG has waited for %s, long after the last probe", got)
	}
	b.probes(120, gap, wait, minStride) // a minute in which the queue is never empty
	if got := b.at(b.now, time.Hour); got != wait {
		t.Errorf("after a minute of %s it is taken for %s", wait, got)
	}
}

// TestBackQueueFast has a probe come each millisecond, and before that, while there is
// nothing to send, one each interval: waits count briefly, and the way may become
// longer.
func TestBackQueueFast(t *testing.T) {
	const wait = 20 * time.Millisecond
	var b backPeer
	b.probes(60, 5*time.Second, 0, 100)
	b.probes(3, time.Millisecond, wait, minStride)
	if got := b.at(b.now+backFresh, time.Hour); got != wait {
		t.Errorf("a PONG has waited for %s, want %s", got, wait)
	}
	if got := b.at(b.now+backFresh+1, time.Hour); got != 0 {
		t.Errorf("a PONG has waited for %s, longer than %s after the last probe", got, backFresh)
	}
	b.probes(int(2*minRTTAge/time.Millisecond)+2, time.Millisecond, wait, minStride)
	if got := b.at(b.now, time.Hour); got != 0 {
		t.Errorf("what each probe of %s has taken counts as a wait of %s", 2*minRTTAge, got)
	}
}
