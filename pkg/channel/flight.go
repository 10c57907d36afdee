package channel

import (
	"encoding/binary"
	"math"
	"time"
)

const (
	// rateRounds is for how many round trips a delivery rate counts.
	rateRounds = 6
	// minRTTAge is how long the shortest round trip counts; then the path is
	// drained, for one round trip, to find it anew. What is measured first may
	// have been measured with a queue, and counts for less.
	minRTTAge   = 10 * time.Second
	firstRTTAge = time.Second
	// A path whose shortest round trip is below shortRTT is short: much of what
	// waits on it waits for processors rather than for a line. All of it does
	// where the rate is above fastRate: that path is left alone.
	shortRTT = 5 * time.Millisecond
	fastRate = 100e6

	// Between two probes at least minStride bytes are sent, and so many to begin
	// with.
	minStride   = 2 << 10
	firstStride = 16 << 10
	maxProbes   = 64
	minFlight   = 4 << 10 // the least bound
	minBacklog  = 4 << 10

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
)

// growth is what the gain goes through, round trip by round trip, while the
// path takes the bound without a queue: the line has become faster.
var growth = [...]float64{steadyGain, 1.25, 1.5, 2}

// A flight is the bytes that a channel has on its way: sent on its path, and not
// known to have been received. It keeps them to about what the path itself
// holds, so that little waits in the buffers of the line, behind which every
// small frame would wait too.
//
// It measures by probes: PINGs that stand among the data, whose PONG says that
// all before them has arrived (an ACK says only what a program has consumed).
// From that come the delivery rate and the round trip, and the bound, as in BBR:
// gain x (highest rate of the last round trips) x (shortest round trip of the
// last 10 s). There is none until a queue is seen, and none while somebody else
// keeps one: docs/decisions/006 says why each part is there.
//
// All of it is guarded by the Channel's mu. It allocates nothing and, without a
// bound, looks at the clock for a probe and a PONG only.
type flight struct {
	base   time.Time // times below are since
	mode   flightMode
	limit  uint64 // bytes under way; math.MaxUint64 for no bound
	stride uint64 // bytes between probes

	delivered   uint64        // all before this offset has been received
	deliveredAt time.Duration // when the PONG came that said so
	lastSent    time.Duration // when its PING was sent
	probed      uint64        // offset of the last probe
	begun       bool          // there was a probe
	idleTo      uint64        // the path was not filled by what lies before this offset
	probes      [maxProbes]probe
	first, n    int // of probes, a ring

	rates    [rateRounds]float64 // the highest of each round, bytes per second
	newest   int                 // index of the present round's
	rate     float64             // the highest of all
	minRTT   time.Duration       // 0 while unknown
	minUntil time.Duration       // when it has to be found anew
	drain    bool                // to find minRTT anew

	back backQueue

	assured float64 // bytes per second, see assure

	// The present round trip.
	roundEnd uint64        // offset that ends it
	roundRTT time.Duration // its shortest
	roundMax time.Duration // its longest

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

	gain      float64
	grown     int           // index in growth
	queued    int           // rounds in a row with a queue in spite of the bound; probes, before there is one
	trial     bool          // the bound is back after a time without
	rivalTime time.Duration // how long the next such time is
	rivalEnd  time.Duration
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

// A probe is a PING on its way.
type probe struct {
	end  uint64        // offset of the stream at which it stands
	sent time.Duration // when; unique, and the PING's body
	// As of then, for the rate.
	delivered   uint64
	deliveredAt time.Duration
	lastSent    time.Duration
	idle        bool // what was under way did not fill the path
	drained     bool // it was so little that nothing can have waited
}

// reset begins anew on a path that sends from offset next on.
func (f *flight) reset(next uint64, base time.Time) {
	*f = flight{
		base: base, limit: math.MaxUint64, stride: firstStride,
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
	if f.limit == math.MaxUint64 || f.rate == 0 {
		return 0
	}
	return f.pace - f.takes(2*f.stride) - time.Since(f.base)
}

// sent notes that n bytes are on their way.
func (f *flight) sent(n int) {
	if f.limit != math.MaxUint64 && f.rate > 0 {
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
	if f.limit == math.MaxUint64 {
		return f.limit
	}
	n := f.limit - min(f.limit, f.under(next, confirmed))
	if n < f.stride/2 && f.n > 0 {
		return 0
	}
	return n
}

// under returns how many bytes are under way.
func (f *flight) under(next, confirmed uint64) uint64 {
	return next - min(next, max(f.delivered, confirmed))
}

// due reports whether a probe is to stand at offset next. One follows on the
// last bytes that the bound lets through, so that it is never them that keep it.
func (f *flight) due(next, confirmed uint64) bool {
	switch {
	case !f.begun:
		return true // the path is as empty as it will ever be
	case f.n == maxProbes || next <= f.probed:
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

// probe puts the body of a PING that stands at offset next into dst.
func (f *flight) probe(next, confirmed uint64, dst []byte) int {
	now := time.Since(f.base)
	if f.n > 0 {
		now = max(now, f.probes[(f.first+f.n-1)%maxProbes].sent+1)
	}
	f.probes[(f.first+f.n)%maxProbes] = probe{
		end: next, sent: now, delivered: f.delivered, deliveredAt: f.deliveredAt, lastSent: f.lastSent,
		idle:    f.idleTo > f.delivered,
		drained: float64(f.under(next, confirmed)) <= max(0.85*f.product(), minStride),
	}
	f.n++
	f.begun, f.probed = true, next
	binary.BigEndian.PutUint64(dst, uint64(now))
	return pingLen
}

// product returns how many bytes the path itself holds.
func (f *flight) product() float64 { return f.rate * f.minRTT.Seconds() }

// pong takes the peer's answer. Others than those to probes are passed over.
func (f *flight) pong(body uint64, next uint64) {
	i := 0
	for i < f.n && uint64(f.probes[(f.first+i)%maxProbes].sent) != body {
		i++
	}
	if i == f.n {
		return
	}
	p := f.probes[(f.first+i)%maxProbes] // those before it were not answered, which it does for them
	f.first, f.n = (f.first+i+1)%maxProbes, f.n-i-1
	now := time.Since(f.base)
	rtt := max(now-p.sent, time.Microsecond)
	wait := f.back.at(now, rtt-f.minRTT)
	f.waits += wait
	f.pongs++
	f.timed(&p, now, rtt-wait)
	f.assure(&p, now)
	// Without that wait it would have been here then.
	at := max(now-wait, f.deliveredAt)
	f.rated(&p, at)
	f.delivered, f.deliveredAt, f.lastSent = p.end, at, p.sent
	if p.end >= f.roundEnd {
		f.roundOver(now)
		f.roundEnd = next
	}
	f.bound()
}

// timed takes the round trip of a probe into account, without what its PONG has
// waited behind the peer's data.
func (f *flight) timed(p *probe, now, rtt time.Duration) {
	switch {
	case f.minRTT == 0:
		f.minRTT, f.minUntil = rtt, now+firstRTTAge
	case rtt <= f.minRTT && !f.drain:
		f.minRTT = rtt
	case now < f.minUntil || f.fast():
	case p.drained:
		// While emptying the path makes the round trip shorter, there was more to
		// be emptied than was known.
		again := f.drain && rtt < f.minRTT-f.minRTT/8
		f.minRTT = rtt
		if f.drain = again; !again {
			f.minUntil = now + minRTTAge
		}
	default:
		f.drain, f.rest = true, restRounds
	}
	if f.roundRTT == 0 || rtt < f.roundRTT {
		f.roundRTT = rtt
	}
	f.roundMax = max(f.roundMax, rtt)
	if f.mode != flightOpen {
		return
	}
	if f.queued++; rtt-f.minRTT <= f.worth() || f.fast() {
		f.queued = 0
	}
	if f.queued == firstQueued {
		f.mode, f.queued = flightBound, 0
	}
}

// rated takes the delivery rate over the last round trip of a probe into
// account: what has arrived, over the time in which it has, or was sent if that
// is longer.
func (f *flight) rated(p *probe, now time.Duration) {
	took := max(now-p.deliveredAt, p.sent-p.lastSent, time.Microsecond)
	rate := float64(p.end-p.delivered) / took.Seconds()
	if p.idle && rate < f.rate {
		f.idleRate = max(f.idleRate, rate) // the program had no more to send, it seems
		return
	}
	f.full = f.full || !p.idle
	f.rates[f.newest] = max(f.rates[f.newest], rate)
	f.rate = max(f.rate, rate)
}

// roundOver acts on a whole round trip.
func (f *flight) roundOver(now time.Duration) {
	if !f.full && f.roundRTT-f.minRTT > f.worth()/2 {
		// All of its probes have met a queue: it was only ahead of the kernel's
		// buffers that there was nothing to send.
		f.full = true
		f.rates[f.newest] = max(f.rates[f.newest], f.idleRate)
	}
	f.idleRate = 0
	if f.full && f.rest == 0 {
		switch f.mode {
		case flightOpen: // opens by single samples: the first round may be very long
		case flightBound:
			f.regulate(now)
		case flightRival:
			f.compete(now)
		}
	}
	if f.mode == flightBound && !f.capped {
		f.gain, f.grown = steadyGain, 0
	}
	if f.full { // a round without a filled path says nothing against those before
		f.newest = (f.newest + 1) % rateRounds
		f.rates[f.newest] = 0
		f.rate = 0
		for _, r := range f.rates {
			f.rate = max(f.rate, r)
		}
	}
	f.wait = (f.wait + f.waits/time.Duration(f.pongs)) / 2
	f.waits, f.pongs = 0, 0
	f.roundRTT, f.roundMax, f.full, f.capped = 0, 0, false, false
	if !f.drain && f.rest > 0 {
		f.rest--
	}
}

// fast reports whether the path is none that a bound is for.
func (f *flight) fast() bool { return f.minRTT < shortRTT && f.rate > fastRate }

// worth returns how long a queue has to be for the bound to begin.
func (f *flight) worth() time.Duration {
	if f.minRTT < shortRTT {
		return 25 * time.Millisecond
	}
	return max(f.minRTT/4, 5*time.Millisecond)
}

// slack returns how long a queue there is to be beside the gain's: enough to
// bridge the time from one probe's PONG to the next.
func (f *flight) slack() time.Duration {
	if f.minRTT < shortRTT {
		return 10 * time.Millisecond
	}
	return 2 * time.Millisecond
}

// regulate lets the bound grow while the path takes it without a queue, and
// finds out whose queue there is.
func (f *flight) regulate(now time.Duration) {
	switch {
	case !f.capped:
		return
	case f.roundMax < f.minRTT+f.slack()/2:
		f.grown = min(f.grown+1, len(growth)-1)
	default:
		f.grown = 0
	}
	f.gain = growth[f.grown]
	// What our own bytes explain, and some more.
	own := time.Duration(float64(f.limit)/f.rate*float64(time.Second)) - time.Duration(waitCredit*float64(f.wait))
	if f.roundRTT <= own+own*2/5+f.slack() {
		if f.queued = 0; f.trial {
			f.trial, f.rivalTime = false, minRivalTime
		}
		return
	}
	f.queued++
	if f.queued >= rivalRounds || f.trial && f.queued >= trialRounds {
		f.mode, f.queued, f.rivalEnd = flightRival, 0, now+f.rivalTime
		f.rivalTime = min(2*f.rivalTime, maxRivalTime)
	}
}

// compete raises the bound round trip by round trip, up to none, and tries after
// a while what is there without our own queue.
func (f *flight) compete(now time.Duration) {
	if f.gain < unboundedGain {
		f.gain *= 1.5
	}
	if f.roundMax < f.minRTT+f.slack() || now > f.rivalEnd {
		f.mode, f.gain, f.grown, f.queued, f.trial = flightBound, steadyGain, 0, 0, true
	}
}

// bound puts what was measured into force.
func (f *flight) bound() {
	f.limit = math.MaxUint64
	pause := 5 * time.Millisecond // of the rate between probes
	switch {
	case f.drain && f.rate > 0:
		f.limit = max(uint64(0.75*f.product()), minStride)
	case f.mode == flightOpen || f.gain >= unboundedGain:
	default:
		over := max(f.rate*f.slack().Seconds(), 2*minStride) + f.rate*waitCredit*f.wait.Seconds()
		f.limit = max(uint64(f.gain*f.product()+over), minFlight)
		pause = f.slack() / 2
	}
	f.stride = max(uint64(f.rate*pause.Seconds()), minStride)
	if f.limit != math.MaxUint64 {
		f.stride = max(min(f.stride, f.limit/16), f.limit/32, minStride)
	}
}

// backlog returns how many bytes may wait to be sent: with a bound, what the
// next PONGs let through; more would only be delay.
func (f *flight) backlog() int {
	if f.limit == math.MaxUint64 {
		return unsentMax
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

// ponged acts on a PONG of p's.
func (c *Channel) ponged(p *Conn, body []byte) {
	c.mu.Lock()
	if p != c.path {
		c.mu.Unlock()
		return
	}
	f := &c.flight
	f.pong(binary.BigEndian.Uint64(body), c.next)
	c.backlog.Store(int64(f.backlog()))
	more := c.moreLocked()
	if c.writing {
		c.writable.Broadcast() // the bound on what is unsent may have grown
	}
	c.mu.Unlock()
	if more {
		p.w.kick(false)
	}
}

// pinged takes a PING of p's into account, which the record layer answers.
func (c *Channel) pinged(p *Conn, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.path {
		c.flight.back.pinged(binary.BigEndian.Uint64(body), time.Since(c.flight.base))
	}
}

// Backlog returns how many bytes may wait before the channel without more delay
// than they are worth: few milliseconds of the path's rate when that is slow.
func (c *Channel) Backlog() int { return int(c.backlog.Load()) }
