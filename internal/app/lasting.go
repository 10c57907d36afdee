package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A lasting session is a session with the channel that it runs on.
type lasting struct {
	*tunnel.Session
	ch *channel.Channel

	mu   sync.Mutex
	last *time.Timer // ends the channel; nil before hurry
	over bool        // Run has returned
}

// Run keeps the channel and serves the session until either is over.
func (s *lasting) Run(ctx context.Context) error {
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = s.ch.Run(keep) }) // the session says why it has ended
	running.Go(func() {
		for {
			select {
			case <-s.Moving():
				s.ch.Move()
			case <-keep.Done():
				return
			}
		}
	})
	defer context.AfterFunc(ctx, s.hurry)()
	err := s.Session.Run(ctx)
	stop()
	running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.last != nil {
		s.last.Stop()
	}
	return err
}

// OpenAnswered opens a stream, and waits until the peer has accepted it. It does not
// wait for another path: nothing has happened yet that could not be begun elsewhere.
func (s *lasting) OpenAnswered(ctx context.Context, o tunnel.Open) (*tunnel.Stream, error) {
	st, err := s.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	trace.From(ctx).Event(trace.EventOpenSent)
	answer, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		s.awaitDown(answer)
		cancel(errPathLost)
	})
	err = st.Answered(answer)
	cancel(nil)
	watching.Wait()
	if err != nil {
		_ = st.Reset(code.Aborted) // it is over either way
		return nil, err
	}
	return st, nil
}

// awaitDown waits until the channel has no path, or ctx ends.
func (s *lasting) awaitDown(ctx context.Context) {
	for {
		_, changed, err := s.Path()
		if err != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// hurry bounds how long a close that is under way, or begins now, may wait for
// its peer: this process stops.
func (s *lasting) hurry() { s.endWithin(code.Shutdown, errShutdown) }

// endWithin is hurry for another reason.
func (s *lasting) endWithin(c code.Code, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil && !s.over {
		s.last = time.AfterFunc(closeTime, func() { s.ch.Fail(c, err) })
	}
}

// Fail ends the channel, and with it the session, without a word to the peer.
func (s *lasting) Fail(c code.Code, err error) { s.ch.Fail(c, err) }

// Reroute says that other routes are listed now, or in another order.
func (s *lasting) Reroute() { s.ch.Reroute() }

// Path says whether there is a path.
func (s *lasting) Path() (route int, changed <-chan struct{}, err error) {
	_, changed = s.ch.Up()
	st := s.ch.State()
	switch {
	case st.Up:
		return st.Route, changed, nil
	case st.Err != nil:
		return st.Route, changed, st.Err
	}
	return st.Route, changed, errNoPath
}

// errNoPath says that a channel is over, or about to be.
var errNoPath = errors.New("the channel is over")

// closeTime bounds how long a process that stops waits, after its drain time, for
// its peers' word that they have everything: where there is no path, in vain.
const closeTime = 2 * time.Second

// channelSettings are what all channels of a process share.
func (b *base) channelSettings(c *config.Channels, trace *channel.Trace) channel.Settings {
	return channel.Settings{Keepalive: b.common.Keepalive, Grace: c.Grace, Buffers: b.buffers, Trace: trace}
}

// tunnelConfig gives the mux the patience that its channels need: whatever is
// on its way may wait as long as a channel waits for a path.
func (b *base) tunnelConfig(c *config.Channels) tunnel.Config {
	return tunnel.Config{Patience: c.Grace + 15*time.Second}
}

// pathMetrics count what happens to the paths of channels.
type pathMetrics struct {
	changes *prometheus.CounterVec // cause
	losses  *prometheus.CounterVec // code
	ended   *prometheus.CounterVec // code; of channels
	down    prometheus.Histogram
	resent  prometheus.Counter
}

func newPathMetrics(r prometheus.Registerer, command string, buffers *channel.Buffers) *pathMetrics {
	m := &pathMetrics{
		changes: newCounterVec(r, "culvert_channel_path_changes_total", "Paths that channels have gone on over, by why.", "cause"),
		losses:  newCounterVec(r, "culvert_channel_path_losses_total", "Paths that have ended by themselves, by how.", "code"),
		ended:   newCounterVec(r, "culvert_"+command+"_channels_lost_total", "Channels that could not be kept, whose streams were reset, by why; timeout is that there was no path for grace.", "code"),
		down: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "culvert_channel_downtime_seconds",
			Help:    "How long channels were without a path, for those that have got another.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		resent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "culvert_channel_resent_bytes_total",
			Help: "Bytes that were sent again after a change of path.",
		}),
	}
	for _, c := range channel.Causes() {
		m.changes.WithLabelValues(string(c)) // shown from the start
	}
	for _, l := range []string{remedy.Ended, code.Dead.String()} {
		m.losses.WithLabelValues(l)
	}
	for _, c := range []code.Code{code.Timeout, code.UnknownChannel, code.Gone, code.Limit, code.Protocol} {
		m.ended.WithLabelValues(c.String())
	}
	r.MustRegister(m.down, m.resent)
	newGauge(r, "culvert_channel_buffer_bytes", "Bytes that channels hold for sending again, or for a reader, in whole chunks.",
		func() float64 { return float64(buffers.Used()) })
	newGauge(r, "culvert_channel_buffer_limit_bytes", "How many bytes channels may hold before writers wait (buffers).",
		func() float64 { return float64(buffers.Limit()) })
	return m
}

func (m *pathMetrics) lost(err error) { m.losses.WithLabelValues(pathLabel(err)).Inc() }

// channelLost counts a channel that was lost, under a word that label has returned.
func (m *pathMetrics) channelLost(why string) { m.ended.WithLabelValues(why).Inc() }

func (m *pathMetrics) moved(mv channel.Move) {
	m.changes.WithLabelValues(string(mv.Cause)).Inc()
	m.resent.Add(float64(mv.Resent))
	if mv.Cause == channel.Lost || mv.Down > 0 {
		m.down.Observe(mv.Down.Seconds())
	}
}

// moveFields are what the log says of a change of path.
func moveFields(m channel.Move, fields ...zap.Field) []zap.Field {
	return append(fields, zap.String("cause", string(m.Cause)), zap.Duration("down", m.Down), zap.Int64("resent", m.Resent))
}

// pathLabel is label for the end of a path.
func pathLabel(err error) string {
	if l := label(err, code.ChannelLost); l != code.ChannelLost.String() {
		return l
	}
	return remedy.Ended // in no way that has a name: a reset, or an end without a close
}
