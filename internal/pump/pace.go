package pump

import "time"

// A Pace is one direction of one conn that is kept to a [Rate], for who moves bytes
// otherwise than by [Both]. One goroutine at a time uses it.
type Pace struct {
	rate *Rate
	at   turn // when what was moved is paid for
}

// NewPace returns a Pace of r, which others may share.
func NewPace(r *Rate) *Pace { return &Pace{rate: r} }

// Due returns how long it is until what was moved before is paid for, and what is closed
// when that becomes another time. 0: it is paid for.
func (p *Pace) Due() (left time.Duration, changed <-chan struct{}) {
	if p.at == 0 {
		return 0, nil
	}
	left, changed = p.rate.left(p.at)
	if left <= rateSlack {
		return 0, nil
	}
	return left, changed
}

// Chunk returns how many bytes are moved at a time, of at most most.
func (p *Pace) Chunk(most int) int { return p.rate.chunk(most, limitedPart) }

// Moved counts n bytes that were moved.
func (p *Pace) Moved(n int) { p.at = p.rate.moved(p.at, n) }
