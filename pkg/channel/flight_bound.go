package channel

import (
	"math"
	"time"
)

// growth is what the gain goes through, round trip by round trip, while the
// path takes the bound without a queue: the line has become faster.
var growth = [...]float64{steadyGain, 1.25, 1.5, 2}

// roundOver acts on a whole round trip.
func (f *flight) roundOver(now time.Duration) {
	if !f.full && f.idleRate > 0 && f.roundRTT-f.minRTT > f.worth()/2 {
		// All of its probes have met a queue, and there was enough under way to make
		// one: it was only ahead of the kernel's buffers that there was nothing to send.
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
	f.roundRTT, f.roundMax, f.roundSum, f.full, f.capped = 0, 0, 0, false, false
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

// standing returns how long a queue there is on average with steadyGain while the
// path is filled. Without it round trips still differ by what wake-ups take.
func (f *flight) standing() time.Duration {
	return time.Duration((steadyGain-1)*float64(f.minRTT)) + f.slack()
}

// empty reports whether the round trip has met no queue. With data both ways what
// PONGs wait for is known too inexactly for an average.
func (f *flight) empty() bool {
	if f.wait < f.slack()/4 {
		return f.roundSum/time.Duration(f.pongs)-f.minRTT < f.standing()/2
	}
	return f.roundMax < f.minRTT+f.slack()/2
}

// regulate lets the bound grow while the path takes it without a queue, and
// finds out whose queue there is.
func (f *flight) regulate(now time.Duration) {
	switch {
	case !f.capped:
		return
	case f.empty():
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
func (f *flight) bound(now time.Duration) {
	f.limit, f.brisk = math.MaxUint64, false
	f.ahead = max(uint64(f.assured*max(aheadTime, aheadTrips*f.minRTT).Seconds()), firstFlight)
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
	if most := max(briskFlight, uint64(2*f.product())); now < f.briskUntil && f.minRTT < shortRTT && f.mode != flightRival && most < f.limit {
		f.brisk, f.limit, f.stride = true, most, most/4
	}
}
