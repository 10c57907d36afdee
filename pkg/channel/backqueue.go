package channel

import "time"

// backFresh is for how long it counts that the peer's probes have waited.
const backFresh = 200 * time.Millisecond

// A backQueue is how long the peer's data waits on its way here, and the PONGs
// with it. It is known from the peer's own probes, whose bodies are the peer's
// clock: of how much longer one was under way than the fastest of the last
// times, the clocks' difference is no part. From a peer whose PINGs hold
// something else it comes out as anything, and is bounded by what it is taken
// from.
type backQueue struct {
	fastest [2]time.Duration // of this period of minRTTAge, and of that before
	until   time.Duration    // when the next period begins; 0 while nothing is known
	wait    time.Duration    // of the latest probe
	seen    time.Duration    // when that came
}

// pinged takes a PING of the peer's into account.
func (b *backQueue) pinged(body uint64, now time.Duration) {
	took := now - time.Duration(body)
	if now >= b.until {
		if b.fastest[1] = b.fastest[0]; b.until == 0 {
			b.fastest[1] = took
		}
		b.fastest[0], b.until = took, now+minRTTAge
	}
	b.fastest[0] = min(b.fastest[0], took)
	b.wait, b.seen = took-min(b.fastest[0], b.fastest[1]), now
}

// at returns how long a PONG that comes now has waited, at most the given time.
func (b *backQueue) at(now, most time.Duration) time.Duration {
	if b.until == 0 || now-b.seen > backFresh {
		return 0
	}
	return max(0, min(b.wait, most))
}
