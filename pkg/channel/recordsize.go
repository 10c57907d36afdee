package channel

import "time"

const (
	// leastRecord is how many bytes of data a record may hold whatever the path is:
	// at 9,600 bit/s they take less than 2 s, which is how long the peer waits for a
	// sign of life where its keepalive interval is the shortest there is, 1 s.
	leastRecord = 2 << 10
	// recordTime is how long one may take at the rate that the path has had: half of
	// that interval, since the path may have become slower.
	recordTime = 500 * time.Millisecond
)

// record returns how many bytes of data a record may hold. Only whole records are
// signs of life, so one that the path takes too long for would be the path's end,
// and then the next one's.
func (f *flight) record() uint64 {
	return max(uint64(f.assured*recordTime.Seconds()), leastRecord)
}

// assure takes a probe into account of which the PONG has come now. All between the
// probe that was the last to be answered when it was sent, and itself, has gone the
// whole way in the time from the one's sending to now: however late either answer
// was, and wherever the bytes have waited, the path has been as fast as that. The
// rate of flight is nearer to the truth, and can lie above it.
func (f *flight) assure(p *probe, now time.Duration) {
	took := max(now-p.lastSent, time.Microsecond)
	f.assured = max(f.assured, float64(p.end-p.delivered)/took.Seconds())
}
