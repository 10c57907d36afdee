package app

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/route"
)

// leaveTime is how long a channel has for making another path, in the place of one that
// it may use no more, before it has none.
const leaveTime = 2 * time.Second

// A departure is a channel's leaving of a path over a relay that is revoked. It belongs
// to the goroutine that rechecks.
type departure struct {
	since time.Time // zero: none is under way
}

// depart has ch leave its path where revoked says that a relay on it is. ask has another
// path made first; where that is not in use within leaveTime, streams wait without.
func (b *base) depart(d *departure, ch *channel.Channel, revoked error, ask func()) {
	now := time.Now()
	switch {
	case revoked == nil:
		d.since = time.Time{}
	case d.since.IsZero():
		d.since = now
		b.trust.due(now.Add(leaveTime))
		ask()
	case now.Sub(d.since) < leaveTime:
		b.trust.due(d.since.Add(leaveTime))
	default:
		d.since = time.Time{}
		id, _ := ch.Remote()
		b.log.Warn("path is cut, since a relay on it is revoked and there is no other", zap.Stringer("peer", id), zap.Stringer("channel", ch.ID()), zap.Error(revoked))
		ch.Leave(revoked)
	}
}

// admitRoute returns why a route may be used no more: one of its hops is revoked.
func (t *trust) admitRoute(r route.Route) error {
	for i, h := range r {
		if err := t.admit(channel.Peer{Identifier: h.Identifier}); err != nil {
			return fmt.Errorf("hop %d of %d (%s): %w", i+1, len(r), h, err)
		}
	}
	return nil
}
