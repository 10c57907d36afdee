package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A client that got no stream is counted for what kept it from one.
func TestOpenEnds(t *testing.T) {
	stopping, cancel := context.WithCancelCause(t.Context())
	cancel(errShutdown)
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"first attempt under way", t.Context(), &noChannelError{}, "timeout"},
		{"route failed", t.Context(), &noChannelError{last: routeErrors{&channel.RefusedError{Code: code.NotRegistered}}}, "not_registered"},
		{"the mux takes nothing", t.Context(), fmt.Errorf("waiting to open a stream: %w", context.DeadlineExceeded), "timeout"},
		{"session over", t.Context(), &tunnel.LossError{Cause: net.ErrClosed}, "channel_lost"},
		{"session over in time", t.Context(), &tunnel.LossError{Cause: context.DeadlineExceeded}, "channel_lost"},
		{"outlet drains", t.Context(), tunnel.ErrDraining, "draining"},
		{"too many", t.Context(), tunnel.ErrTooMany, "limit"},
		{"no more numbers", t.Context(), tunnel.ErrUsedUp, "limit"},
		{"stopping", stopping, &noChannelError{}, "shutdown"},
	} {
		if got := openEnd(tt.ctx, tt.err); got.label != tt.want || got.reason == "" {
			t.Errorf("%s: %+v, want label %q and a reason", tt.name, got, tt.want)
		}
	}
}

// What this side ends is not said to be the peer's doing.
func TestOwnCloseIsNotThePeers(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{outlet: func(c *config.Outlet) { c.DrainTimeout = 50 * time.Millisecond }})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopOutlet()
	wantReset(t, nc)
	reason := func(side *logBuffer) (text string) {
		eventually(t, "the channel is closed", func() bool {
			lines := side.lines(t, map[string]string{"msg": "channel closed"})
			if len(lines) == 1 {
				text, _ = lines[0]["reason"].(string)
			}
			return len(lines) == 1
		})
		return text
	}
	outlet, inlet := reason(sys.outletLog), reason(sys.inletLog)
	// The stream that was cut was the last one of a channel that drains, for which
	// the inlet closes it: either may come first, or both at once.
	const stops, drains = "shutdown: the outlet is stopping", "draining: all streams have moved to another channel"
	switch [2]string{outlet, inlet} {
	case [2]string{"closed here: " + stops, "peer closed: " + stops}:
	case [2]string{"closed here: " + stops, "closed here: " + drains}:
	case [2]string{"peer closed: " + drains, "closed here: " + drains}:
	default:
		t.Errorf("the outlet says %q, the inlet %q", outlet, inlet)
	}
}

// A channel that has ended as it was meant to wants nothing done, and the log says so of
// none.
func TestAnEndThatIsMeantHasNoRemedy(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	wantEcho(t, sys.dial(t), "hello")
	sys.stopInlet()
	lines := sys.inletLog.lines(t, map[string]string{"msg": "channel closed", "code": "shutdown"})
	if len(lines) != 1 || lines[0]["remedy"] != nil {
		t.Errorf("%v, want one line without a remedy", lines)
	}
}

// Whatever made the new path, a channel that was without one was down.
func TestDowntimeIsCounted(t *testing.T) {
	o, _ := newObs(t, "inlet")
	m := newPathMetrics(o.Registry, "inlet", channel.NewBuffers(1<<20))
	m.lost(errors.New("reset"))
	m.moved(channel.Move{Cause: channel.Lost, Down: time.Second})
	m.moved(channel.Move{Cause: channel.Asked, Down: time.Second}) // it was lost while another was made
	m.moved(channel.Move{Cause: channel.Renewed})
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "culvert_channel_downtime_seconds" {
			continue
		}
		if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 2 {
			t.Errorf("%d downtimes, %v s in all; want 2 and 2", h.GetSampleCount(), h.GetSampleSum())
		}
	}
}
