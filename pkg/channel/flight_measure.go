package channel

import (
	"encoding/binary"
	"time"
)

// A probe is a PING on its way.
type probe struct {
	end  uint64        // offset of the stream at which it stands
	sent time.Duration // when; unique, and the PING's body
	// As of then, for the rate.
	delivered   uint64
	deliveredAt time.Duration
	heardAt     time.Duration
	lastSent    time.Duration
	under       uint64 // bytes under way
	idle        bool   // they did not fill the path
}

// probe puts the body of a PING that stands at offset next into dst.
func (f *flight) probe(next, confirmed uint64, dst []byte) int {
	now := time.Since(f.base)
	if f.n > 0 {
		now = max(now, f.probes[(f.first+f.n-1)%maxProbes].sent+1)
	}
	f.probes[(f.first+f.n)%maxProbes] = probe{
		end: next, sent: now, delivered: f.delivered, deliveredAt: f.deliveredAt, heardAt: f.heardAt, lastSent: f.lastSent,
		under: f.under(next, confirmed), idle: f.idleTo > f.delivered,
	}
	f.n++
	f.begun, f.probed = true, next
	binary.BigEndian.PutUint64(dst, uint64(now))
	return pingLen
}

// product returns how many bytes the path itself holds.
func (f *flight) product() float64 { return f.rate * f.minRTT.Seconds() }

// drained reports whether so little was under way with a probe that nothing can have
// waited. What the path holds is asked now, and by the latest sample where that is much
// below the rate: when the probe was sent it was not known yet that the line had become
// slower, and the rate counts for some round trips, which are long then.
func (f *flight) drained(p *probe) bool {
	holds := f.product()
	if f.latest < f.rate/2 {
		holds = f.latest * f.minRTT.Seconds()
	}
	return float64(p.under) <= max(0.85*holds, minStride)
}

// pong takes the peer's answer to a probe, or to a keepalive's PING behind one: of
// several PINGs that wait the last is answered, which says that all before it has
// arrived. Others are passed over.
func (f *flight) pong(body uint64, next uint64, smalls uint32) {
	i := f.n - 1
	for i >= 0 && uint64(f.probes[(f.first+i)%maxProbes].sent) > body {
		i--
	}
	if i < 0 {
		return
	}
	p := f.probes[(f.first+i)%maxProbes] // those before it were not answered, which it does for them
	f.first, f.n = (f.first+i+1)%maxProbes, f.n-i-1
	now := time.Since(f.base)
	if smalls != f.smalls {
		f.smalls, f.briskUntil = smalls, now+briskTime
	}
	sent := p.sent
	if body <= uint64(now) {
		sent = time.Duration(body)
	}
	rtt := max(now-sent, time.Microsecond)
	wait := f.back.at(now, rtt-f.minRTT)
	f.waits += wait
	f.pongs++
	f.hold(&p, now, rtt, wait)
	f.timed(rtt - wait)
	f.assure(&p, now)
	// Without that wait it would have been here then.
	at := max(now-wait, f.deliveredAt)
	f.rated(&p, at, now)
	f.delivered, f.deliveredAt, f.heardAt, f.lastSent = p.end, at, now, p.sent
	if p.end >= f.roundEnd {
		f.roundOver(now)
		f.roundEnd = next
	}
	f.bound(now)
}

// hold keeps the round trip of a probe until the peer's next probe tells for how long
// its PONG has surely waited behind the peer's data: that probe has left later. By the
// one before it, it often comes out as longer than it was, and the shortest round trip as
// too short. Where the peer's probes are far apart the next one tells nothing.
func (f *flight) hold(p *probe, now, rtt, wait time.Duration) {
	switch {
	case f.minRTT == 0 || f.back.gap == 0 || f.back.gap > f.minRTT/closeProbes || now-f.back.seen > f.minRTT:
		f.held.rtt = 0
		f.shortest(p, now, rtt-wait, wait)
	case f.held.rtt == 0 || rtt < f.held.rtt:
		f.held = heldPong{probe: *p, at: now, rtt: rtt}
	}
}

// pinged takes a PING of the peer's into account, before which the data up to offset
// has come.
func (f *flight) pinged(body, offset uint64) {
	now := time.Since(f.base)
	f.back.pinged(body, offset, now)
	rtt := f.held.rtt
	f.held.rtt = 0
	if since := now - f.held.at; rtt > 0 && since <= f.minRTT {
		wait := max(0, min(f.back.wait-since, rtt-f.minRTT))
		f.shortest(&f.held.probe, now, rtt-wait, wait)
	}
}

// shortest looks whether the round trip of a probe is the shortest: rtt, without the
// wait of its PONG.
func (f *flight) shortest(p *probe, now, rtt, wait time.Duration) {
	switch {
	case f.minRTT == 0:
		f.minRTT, f.minUntil = rtt, now+firstRTTAge
	case rtt <= f.minRTT && !f.drain:
		f.minRTT = rtt
	case now < f.minUntil || f.fast():
	case f.drained(p):
		// While emptying the path makes the round trip shorter, there was more to
		// be emptied than was known.
		again := f.drain && rtt < f.minRTT-f.minRTT/8
		f.minRTT = rtt
		if f.drain = again; !again {
			f.minUntil = now + min(max(minRTTAge, drainTrips*(rtt+wait)), mostRTTAge)
		}
	default:
		f.drain, f.rest = true, restRounds
	}
}

// timed takes a round trip, without the wait of its PONG, into account for queues.
func (f *flight) timed(rtt time.Duration) {
	if f.roundRTT == 0 || rtt < f.roundRTT {
		f.roundRTT = rtt
	}
	f.roundMax = max(f.roundMax, rtt)
	f.roundSum += rtt
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
// is longer. It has arrived from one PONG to the other: at is when this one would have
// come without its wait. That wait is known from a probe of the peer's that may have
// entered the queue before the PONG did, and is then too long, and the time too short,
// so the time until now counts where it is longer.
func (f *flight) rated(p *probe, at, now time.Duration) {
	took := max(at-p.deliveredAt, now-p.heardAt, p.sent-p.lastSent, time.Microsecond)
	rate := float64(p.end-p.delivered) / took.Seconds()
	if p.end > p.delivered {
		f.latest = rate
	}
	if p.idle && rate < f.rate {
		// The program had no more to send, it seems. What is too little to have made a
		// queue has waited in somebody else's.
		if float64(p.under) > 0.85*f.product() {
			f.idleRate = max(f.idleRate, rate)
		}
		return
	}
	f.full = f.full || !p.idle
	f.rates[f.newest] = max(f.rates[f.newest], rate)
	f.rate = max(f.rate, rate)
}
