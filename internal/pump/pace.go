package pump

import (
	"errors"
	"time"
)

// A pace keeps one direction to a rate by pausing after each chunk, when
// nothing is held.
type pace struct {
	rate int64     // bytes per second; 0 is no limit
	due  time.Time // when all that was carried is paid for
}

var errCut = errors.New("the other direction ended")

// wait counts n bytes and pauses until they are paid for, or until cut is
// closed.
func (p *pace) wait(n int, cut <-chan struct{}) error {
	if p.rate <= 0 {
		return nil
	}
	now := time.Now()
	if p.due.Before(now) {
		p.due = now // what was not used is not saved up
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	t := time.NewTimer(p.due.Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-cut:
		return errCut
	}
}
