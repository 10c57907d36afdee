package channel

import "time"

const (
	// For backFresh it counts that the peer's probes have waited, and on a slow path
	// for backProbes times as long as from one to the next: who takes a queue for
	// none there holds back for what is the other direction's, and starves.
	backFresh  = 200 * time.Millisecond
	backProbes = 2
	// The fastest probe counts for minRTTAge, and for backAge times as long as from
	// one to the next: a slow path may have no moment without a queue in so short a
	// time. The drift of the clocks is nothing beside what a probe takes there.
	backAge = 256
	// backGap is the longest time between two probes that is thought to be the path's
	// doing: at 9,600 bit/s they are 1.7 s apart.
	backGap = 2 * time.Second
)

// A backQueue is how long the peer's data waits on its way here, and the PONGs
// with it. It is known from the peer's own probes, whose bodies are the peer's
// clock: of how much longer one was under way than the fastest of the last
// times, the clocks' difference is no part. From a peer whose PINGs hold
// something else it comes out as anything, and is bounded by what it is taken
// from.
type backQueue struct {
	known   bool             // there was a probe
	fastest [2]time.Duration // of this period, and of that before
	begun   time.Duration    // when this period has
	wait    time.Duration    // of the latest probe
	seen    time.Duration    // when that came
	offset  uint64           // of the data that had come before it
	gap     time.Duration    // from one probe among data to the next, on an average over the last ones
}

// pinged takes a PING of the peer's into account, before which the data up to
// offset has come.
func (b *backQueue) pinged(body, offset uint64, now time.Duration) {
	took := now - time.Duration(body)
	if b.known && offset-min(offset, b.offset) >= minStride/2 { // else the peer has little to send
		b.gap += (min(now-b.seen, backGap) - b.gap) / 4
	}
	switch {
	case !b.known:
		b.known, b.fastest, b.begun = true, [2]time.Duration{took, took}, now
	case now-b.begun >= max(minRTTAge, backAge*b.gap):
		b.fastest[1], b.fastest[0], b.begun = b.fastest[0], took, now
	}
	b.fastest[0] = min(b.fastest[0], took)
	b.wait, b.seen, b.offset = took-min(b.fastest[0], b.fastest[1]), now, offset
}

// at returns how long a PONG that comes now has waited, at most the given time.
func (b *backQueue) at(now, most time.Duration) time.Duration {
	if !b.known || now-b.seen > max(backFresh, backProbes*b.gap) {
		return 0
	}
	return max(0, min(b.wait, most))
}
