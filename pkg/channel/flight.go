package channel

import (
	"math"
	"time"
)

const (
	// rateRounds is for how many round trips a delivery rate counts.
	rateRounds = 6
	// minRTTAge is how long the shortest round trip counts; then the path is
	// drained, for one round trip, to find it anew. What is measured first may
	// have been measured with a queue, and counts for less. On the slowest lines,
	// where a record takes a second and waits for longer behind the peer's, it
	// counts for drainTrips round trips: else the path would be drained most of the
	// time.
	minRTTAge   = 10 * time.Second
	firstRTTAge = time.Second
	drainTrips  = 32
	mostRTTAge  = time.Minute
	// A path whose shortest round trip is below shortRTT is short: much of what
	// waits on it waits for processors rather than for a line. All of it does
	// where the rate is above fastRate: that path is left alone.
	shortRTT = 5 * time.Millisecond
	fastRate = 100e6
	// While small frames travel beside bulk, and for briskTime after, there is no
	// more than briskFlight under way on a short path, or twice what it holds. It
	// costs bulk a tenth, in wake-ups, so it is for those who have something of it.
	briskFlight = 512 << 10
	briskTime   = time.Second

	// Between two probes at least minStride bytes are sent, and so many to begin
	// with.
	minStride   = 2 << 10
	firstStride = 16 << 10
	maxProbes   = 64
	minFlight   = 4 << 10 // the least bound
	minBacklog  = 4 << 10
	// Without a bound there is no more under way than firstFlight, or what the path
	// brings in aheadTime, or in aheadTrips round trips, at the highest rate that it
	// has surely had: on the slowest lines more would wait for minutes, and the peer's
	// PONGs with it. A TCP connection begins with less, and grows no faster.
	firstFlight = 32 << 10
	aheadTime   = 2 * time.Second
	aheadTrips  = 4

	// restRounds pass until a path that was emptied is as it was.
	restRounds = 3
	// firstQueued probes in a row have to meet a queue for the bound to begin.
	firstQueued = 4
	// steadyGain is how many times rate x round trip are under way when all is
	// well. The bound grows by the next of the gains while that builds no queue.
	steadyGain = 1.08
	// A queue that outlives rivalRounds round trips of the bound is somebody
	// else's. A trial is shorter: it follows on a time without a bound.
	rivalRounds   = 10
	trialRounds   = 5
	minRivalTime  = 2 * time.Second
	maxRivalTime  = 32 * time.Second
	unboundedGain = 16
	paceGain      = 1.1
	// waitCredit is how much of the time that PONGs wait behind the peer's data is
	// made up for. With all of it the two directions' queues would keep each
	// other up.
	waitCredit = 0.7
	// The peer's probes are close to each other if so many come in a round trip.
	closeProbes = 6
)

// A flight is the bytes that a channel has on its way: sent on its path, and not
// known to have been received. It keeps them to about what the path itself
// holds, so that little waits in the buffers of the line, behind which every
// small frame would wait too.
//
// It measures by probes: PINGs that stand among the data, whose PONG says that
// all before them has arrived (an ACK says only what a program has consumed).
// From that come the delivery rate and the round trip, and the bound, as in BBR:
// gain x (highest rate of the last round trips) x (shortest round trip of the
// last 10 s). Until a queue is seen, and while somebody else keeps one, there is none
// but what the path has surely brought in a while: docs/decisions/006 says why each
// part is there.
//
// All of it is guarded by the Channel's mu. It allocates nothing and, without a
// bound, looks at the clock for a probe, a PONG, and bytes on an empty path only.
type flight struct {
	base   time.Time // times below are since
	mode   flightMode
	limit  uint64 // bytes under way; math.MaxUint64 for no bound
	ahead  uint64 // bytes under way while there is no bound
	stride uint64 // bytes between probes

	delivered   uint64        // all before this offset has been received
	deliveredAt time.Duration // when the PONG came that said so, without its wait behind the peer's data
	heardAt     time.Duration // when it came
	lastSent    time.Duration // when its PING was sent
	probed      uint64        // offset of the last probe
	begun       bool          // there was a probe
	idleTo      uint64        // the path was not filled by what lies before this offset
	probes      [maxProbes]probe
	first, n    int // of probes, a ring

	rates    [rateRounds]float64 // the highest of each round, bytes per second
	newest   int                 // index of the present round's
	rate     float64             // the highest of all
	latest   float64             // the last one, of whatever was under way
	minRTT   time.Duration       // 0 while unknown
	minUntil time.Duration       // when it has to be found anew
	drain    bool                // to find minRTT anew

	back backQueue
	held heldPong // none if its rtt is 0

	assured float64 // bytes per second, see assure

	// The present round trip.
	roundEnd uint64        // offset that ends it
	roundRTT time.Duration // its shortest
	roundMax time.Duration // its longest
	roundSum time.Duration // of all its pongs

	// How long PONGs have waited behind the peer's data: in this round trip all
	// together, on an average over the last ones.
	waits    time.Duration
	pongs    int
	wait     time.Duration
	full     bool    // it had samples of a filled path
	idleRate float64 // the highest of its others
	capped   bool    // bytes have waited for the bound
	rest     int     // so many more are not judged: the path has been emptied

	pace time.Duration // when, at the pace, all that was sent is on its way

	smalls     uint32        // small frames until the last PONG
	briskUntil time.Duration // when the last of them does not count any more
	brisk      bool          // the bound is theirs

	gain      float64
	grown     int           // index in growth
	queued    int           // rounds in a row with a queue in spite of the bound; probes, before there is one
	trial     bool          // the bound is back after a time without
	rivalTime time.Duration // how long the next such time is
	rivalEnd  time.Duration
}

// A heldPong is the shortest round trip since the peer's last probe, see hold.
type heldPong struct {
	probe probe
	at    time.Duration // when the PONG came
	rtt   time.Duration // its wait included
}

type flightMode uint8

const (
	// flightOpen: no queue was seen yet, and there is no bound.
	flightOpen flightMode = iota
	// flightBound: the queue is ours, and kept small.
	flightBound
	// flightRival: others fill the line's buffer, and who holds back starves.
	flightRival
)

// reset begins anew on a path that sends from offset next on.
func (f *flight) reset(next uint64, base time.Time) {
	*f = flight{
		base: base, limit: math.MaxUint64, ahead: firstFlight, stride: firstStride,
		delivered: next, probed: next, roundEnd: next, idleTo: next,
		gain: steadyGain, rivalTime: minRivalTime,
	}
}

// room returns how many bytes may be sent at offset next, and remembers when
// that is none.
func (f *flight) room(next, confirmed uint64) uint64 {
	n := f.free(next, confirmed)
	f.capped = f.capped || n == 0
	return n
}

// paced returns for how long nothing more is to be sent: what comes all at once,
// since many PONGs have, would wait in the line all at once. The pace is above
// the rate, for the bound to be what counts.
func (f *flight) paced() time.Duration {
	if f.limit == math.MaxUint64 || f.rate == 0 || f.brisk {
		return 0
	}
	return f.pace - f.takes(2*f.stride) - time.Since(f.base)
}

// sent notes that n bytes, the last of them before offset next, are on their way.
func (f *flight) sent(n int, next, confirmed uint64) {
	if before := next - uint64(n); f.under(before, confirmed) == 0 {
		// The time in which there was nothing to send says nothing about the path.
		f.delivered = before
		f.deliveredAt = time.Since(f.base)
		f.heardAt, f.lastSent = f.deliveredAt, f.deliveredAt
	}
	if f.limit != math.MaxUint64 && f.rate > 0 && !f.brisk {
		f.pace = max(f.pace, time.Since(f.base)) + f.takes(uint64(n))
	}
}

// takes returns how long n bytes take at the pace.
func (f *flight) takes(n uint64) time.Duration {
	return time.Duration(float64(n) / (paceGain * max(f.gain, 1) * f.rate) * float64(time.Second))
}

// free returns how much of the bound is free at offset next: nothing where that
// is little and a PONG is going to bring more, so that no crumbs are sent.
func (f *flight) free(next, confirmed uint64) uint64 {
	most := f.limit
	if most == math.MaxUint64 {
		most = f.ahead
	}
	n := most - min(most, f.under(next, confirmed))
	if n < f.stride/2 && f.n > 0 {
		return 0
	}
	return n
}

// under returns how many bytes are under way.
func (f *flight) under(next, confirmed uint64) uint64 {
	return next - min(next, max(f.delivered, confirmed))
}

// due reports whether a probe is to stand at offset next of what there is to send,
// up to end. One follows on the
// last bytes that the bound lets through, so that it is never them that keep it.
func (f *flight) due(next, confirmed, end uint64) bool {
	switch {
	case !f.begun:
		return true // the path is as empty as it will ever be
	case f.n == maxProbes:
		return false
	case next < end && f.n == 0 && f.under(next, confirmed) == 0 && f.minUntil < time.Since(f.base):
		return true // it is so again, and the shortest round trip does not count any more
	case next <= f.probed:
		return false
	case next-f.probed >= f.step(next, confirmed):
		return true
	}
	return f.free(next, confirmed) == 0
}

// step returns how many bytes are sent from probe to probe: without a bound so
// many more as there are more under way, for probes to be enough.
func (f *flight) step(next, confirmed uint64) uint64 {
	if f.limit == math.MaxUint64 {
		return max(f.stride, f.under(next, confirmed)/16)
	}
	return f.stride
}

// untilProbe returns how many bytes may be sent before the next probe. Without a
// bound it waits for the end of a record.
func (f *flight) untilProbe(next, confirmed uint64) uint64 {
	if f.n == maxProbes || f.limit == math.MaxUint64 {
		return math.MaxUint64
	}
	step := f.step(next, confirmed)
	return step - min(step, next-f.probed)
}

// idle notes that there is nothing to send at offset next, while there is room:
// what is under way does not show what the path can do.
func (f *flight) idle(next, confirmed uint64) {
	if f.free(next, confirmed) > 0 {
		f.idleTo = next
	}
}

// beginning reports whether a PONG or two may be all that is missing for what stands from
// offset next on: there is no bound, and the path has not shown to be fast, or as much is
// under way as may be.
func (f *flight) beginning(next, confirmed uint64) bool {
	return f.limit == math.MaxUint64 && (f.ahead < unsentMax || f.free(next, confirmed) == 0)
}

// backlog returns how many bytes may wait to be sent: with a bound, what the
// next PONGs let through; more would only be delay.
func (f *flight) backlog() int {
	if f.limit == math.MaxUint64 {
		return int(min(f.ahead, unsentMax))
	}
	if f.brisk {
		return int(min(f.stride, unsentMax))
	}
	return int(min(max(2*f.stride, minBacklog), unsentMax))
}

// state says what is known, for people.
func (f *flight) state(next, confirmed uint64) Flight {
	s := Flight{RTT: f.minRTT, Rate: f.rate, Under: f.under(next, confirmed)}
	if f.limit != math.MaxUint64 {
		s.Bound = f.limit
	}
	return s
}
