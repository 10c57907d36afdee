package app

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func newGauge(r prometheus.Registerer, name, help string, value func() float64) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func newCounterVec(r prometheus.Registerer, name, help, label string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	r.MustRegister(c)
	return c
}

// handshakeMetrics count handshakes that failed, by the step they failed at, and
// those with an identity that is known better.
type handshakeMetrics struct {
	failures   *prometheus.CounterVec // step
	identities *prometheus.CounterVec // code
}

func newHandshakeMetrics(r prometheus.Registerer) *handshakeMetrics {
	m := &handshakeMetrics{
		failures: newCounterVec(r, "culvert_channel_handshake_failures_total",
			"Handshakes that failed, by the step they failed at.", "step"),
		identities: newCounterVec(r, "culvert_channel_identities_refused_total",
			"Handshakes that this side has refused since a newer history of the peer's identity is known, or one that it has diverged from.", "code"),
	}
	for _, c := range []code.Code{code.RolledBack, code.Diverged} {
		m.identities.WithLabelValues(c.String())
	}
	for _, step := range []string{"preamble", "version", "message 1", "message 2", "message 3", "identity", "request"} {
		m.failures.WithLabelValues(step) // shown from the start
	}
	return m
}

// observe counts err if it is a handshake's.
func (m *handshakeMetrics) observe(err error) {
	var he *channel.HandshakeError
	if !errors.As(err, &he) {
		return
	}
	m.failures.WithLabelValues(he.Step).Inc()
	switch {
	case errors.Is(err, identity.ErrRolledBack):
		m.identities.WithLabelValues(code.RolledBack.String()).Inc()
	case errors.Is(err, identity.ErrDiverged):
		m.identities.WithLabelValues(code.Diverged.String()).Inc()
	}
}

// routeStates is the collector of the states of an inlet's routes.
type routeStates struct{ in *Inlet }

var routeState = prometheus.NewDesc("culvert_inlet_route_state",
	"How an inlet's route did last: 1 carries a channel, 0 worked or was not tried, -1 failed. Without an outlet it is a relay's that finds the outlets of a service.", []string{"outlet", "route"}, nil)

// Describe implements prometheus.Collector.
func (routeStates) Describe(ch chan<- *prometheus.Desc) { ch <- routeState }

// Collect implements prometheus.Collector. Of two links over the same route the
// better state counts.
func (r routeStates) Collect(ch chan<- prometheus.Metric) {
	best := map[[2]string]float64{}
	for _, st := range r.in.ways() {
		for _, route := range st.routes {
			key, value := [2]string{st.outlet, route.Route}, float64(0)
			switch route.State {
			case routeUsed:
				value = 1
			case routeFailed:
				value = -1
			}
			if old, ok := best[key]; !ok || value > old {
				best[key] = value
			}
		}
	}
	for key, value := range best {
		ch <- prometheus.MustNewConstMetric(routeState, prometheus.GaugeValue, value, key[0], key[1])
	}
}
