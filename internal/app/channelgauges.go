package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// channelGauges is the collector of what is known of a process's channels together: of
// each by itself /status has it.
type channelGauges struct {
	sessions                      func() []*lasting
	ping, keys, noPath, noPathFor *prometheus.Desc
}

func newChannelGauges(command string, sessions func() []*lasting) channelGauges {
	return channelGauges{
		sessions: sessions,
		ping: prometheus.NewDesc("culvert_channel_slowest_ping_seconds",
			"How long the peer of the slowest channel took for its last answer; 0 while none has answered.", nil, nil),
		keys:   prometheus.NewDesc("culvert_channel_oldest_keys_seconds", "Age of the oldest keys of a channel; 0 while there is none.", nil, nil),
		noPath: prometheus.NewDesc("culvert_"+command+"_channels_detached", "Channels that are without a path: their streams wait.", nil, nil),
		noPathFor: prometheus.NewDesc("culvert_"+command+"_channels_detached_seconds",
			"How long the channel that waits for a path has waited, of several the longest; 0 while all have one.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (g channelGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.ping
	ch <- g.keys
	ch <- g.noPath
	ch <- g.noPathFor
}

// Collect implements prometheus.Collector.
func (g channelGauges) Collect(ch chan<- prometheus.Metric) {
	var ping, keys, longest time.Duration
	var noPath int
	for _, s := range g.sessions() {
		st := s.ch.State()
		ping, keys = max(ping, st.Ping), max(keys, time.Since(st.Keys))
		// Behind the state: a channel that is over waits for no path.
		if !st.Up && s.ch.Err() == nil {
			noPath++
			longest = max(longest, time.Since(st.Since))
		}
	}
	ch <- prometheus.MustNewConstMetric(g.ping, prometheus.GaugeValue, ping.Seconds())
	ch <- prometheus.MustNewConstMetric(g.keys, prometheus.GaugeValue, keys.Seconds())
	ch <- prometheus.MustNewConstMetric(g.noPath, prometheus.GaugeValue, float64(noPath))
	ch <- prometheus.MustNewConstMetric(g.noPathFor, prometheus.GaugeValue, longest.Seconds())
}
