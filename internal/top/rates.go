package top

import (
	"time"

	"github.com/culvert-net/culvert/internal/watch"
)

// A rate is how many bytes a second go each way: to the service and back, or at a relay
// to the target and back.
type rate struct{ there, back float64 }

func (r rate) sum() float64 { return r.there + r.back }

// Rates are what two answers say of the time between them. The zero value is of one
// answer alone, which says nothing.
type rates struct {
	total rate
	of    map[string]rate // by stream or join
}

// next returns the rates between two answers of one process. Of another one, which has
// taken its place, its counts say nothing yet.
func (rates) next(before, now *watch.Status) rates {
	r := rates{of: map[string]rate{}}
	if before == nil || before.Instance != now.Instance {
		return r
	}
	took := now.Now.Sub(before.Now).Seconds()
	if took <= 0 {
		return r // its clock was set back
	}
	per := func(was, is int64) float64 { return max(float64(is-was), 0) / took }
	if now.Role == watch.Relay {
		r.total = rate{per(before.Totals.ToTarget, now.Totals.ToTarget), per(before.Totals.ToCaller, now.Totals.ToCaller)}
	} else {
		r.total = rate{per(before.Totals.ToService, now.Totals.ToService), per(before.Totals.ToClient, now.Totals.ToClient)}
	}
	was := counts(before)
	for id, c := range counts(now) {
		old, known := was[id]
		if !known && c.since.Before(before.Now) {
			continue // it was there, and left off
		}
		r.of[id] = rate{per(old.there, c.there), per(old.back, c.back)}
	}
	return r
}

// A count is how many bytes have gone each way.
type count struct {
	there, back int64
	since       time.Time
}

// counts returns those of all streams and joins, by what names them.
func counts(s *watch.Status) map[string]count {
	all := make(map[string]count, len(s.Streams)+len(s.Joins))
	for i := range s.Streams {
		st := &s.Streams[i]
		all[string(st.ID)] = count{st.ToService, st.ToClient, st.Since}
	}
	for i := range s.Joins {
		j := &s.Joins[i]
		all[joinID(j)] = count{j.ToTarget, j.ToCaller, j.Since}
	}
	return all
}

// joinID names a join, which has no name of its own.
func joinID(j *watch.Join) string {
	return string(j.Caller + " " + j.CallerInstance + " " + j.Target + " " + j.TargetInstance + " " + watch.Text(j.Since.Format(time.RFC3339Nano)))
}
