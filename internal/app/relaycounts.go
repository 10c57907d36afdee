package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert/pkg/relay"
)

// relayCounts is the collector of a relay's numbers, all of one moment.
type relayCounts struct{ server *relay.Server }

// A relayNumber is one of them.
type relayNumber struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(c *relay.Counts) float64
	// labels are the values of the desc's.
	labels []string
}

// The numbers of a relay.
var (
	relayBytes = prometheus.NewDesc("culvert_relay_bytes_total",
		"Bytes moved between joined connections so far, of those that are open too.", []string{"direction"}, nil)
	relayNumbers = []relayNumber{
		{relayBytes, prometheus.CounterValue, func(c *relay.Counts) float64 { return float64(c.ToTarget) }, []string{"to_target"}},
		{relayBytes, prometheus.CounterValue, func(c *relay.Counts) float64 { return float64(c.ToCaller) }, []string{"to_caller"}},
		relayGauge("registrations", "Outlet instances that are registered.", func(c *relay.Counts) float64 { return float64(c.Registrations) }),
		relayGauge("spares", "Connections that outlets have parked for callers to come.", func(c *relay.Counts) float64 { return float64(c.Spares) }),
		relayGauge("callers_waiting", "Callers that wait for a parked connection of their outlet.", func(c *relay.Counts) float64 { return float64(c.Waiting) }),
		relayGauge("joins_active", "Callers that are joined now.", func(c *relay.Counts) float64 { return float64(c.Joins) }),
		relayGauge("connections", "Connections that are open and authenticated.", func(c *relay.Counts) float64 { return float64(c.Conns) }),
		relayGauge("connections_limit", "How many connections may be open and authenticated (limits.connections).", func(c *relay.Counts) float64 { return float64(c.MostConns) }),
		relayCounter("connections_total", "Connections that were authenticated, and had a place.", func(c *relay.Counts) float64 { return float64(c.Admitted) }),
		relayCounter("joins_total", "Callers that were joined to an outlet or to another relay.", func(c *relay.Counts) float64 { return float64(c.Joined) }),
		relayGauge("handshakes_in_flight", "Handshakes that are under way.", func(c *relay.Counts) float64 { return float64(c.Handshakes) }),
		relayGauge("draining", "1 while the relay joins nobody any more, since it is stopping.", func(c *relay.Counts) float64 {
			if c.Draining {
				return 1
			}
			return 0
		}),
	}
)

func relayGauge(name, help string, of func(c *relay.Counts) float64) relayNumber {
	return relayNumber{prometheus.NewDesc("culvert_relay_"+name, help, nil, nil), prometheus.GaugeValue, of, nil}
}

func relayCounter(name, help string, of func(c *relay.Counts) float64) relayNumber {
	return relayNumber{prometheus.NewDesc("culvert_relay_"+name, help, nil, nil), prometheus.CounterValue, of, nil}
}

// Describe implements prometheus.Collector.
func (relayCounts) Describe(ch chan<- *prometheus.Desc) {
	for _, n := range relayNumbers {
		ch <- n.desc
	}
}

// Collect implements prometheus.Collector.
func (r relayCounts) Collect(ch chan<- prometheus.Metric) {
	c := r.server.Counts()
	for _, n := range relayNumbers {
		ch <- prometheus.MustNewConstMetric(n.desc, n.kind, n.of(&c), n.labels...)
	}
}
