package app

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// unknownService is the label of services that are not in the settings. It is
// no valid name, so no service has it.
const unknownService = "_unknown"

// Directions of bytes, as labels: towards the service or back.
const (
	toService = "to_service"
	toClient  = "to_client"
)

// streamMetrics count the streams of an inlet or an outlet. Services are those
// of the settings, codes those of pkg/code: the sets of labels are bounded.
type streamMetrics struct {
	active *prometheus.GaugeVec   // service
	total  *prometheus.CounterVec // service, code
	bytes  *prometheus.CounterVec // service, direction

	fromSocket, toSocket string // the directions, seen from this process's socket

	mu    sync.Mutex
	shown map[string]int // holds, by service
}

func newStreamMetrics(r prometheus.Registerer, command string) *streamMetrics {
	prefix := "culvert_" + command
	m := &streamMetrics{
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: prefix + "_streams_active",
			Help: "Proxied connections that are open.",
		}, []string{"service"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_streams_total",
			Help: "Proxied connections that have ended, by how they did; ok is a clean end.",
		}, []string{"service", "code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_bytes_total",
			Help: "Bytes of proxied connections, without Culvert's own.",
		}, []string{"service", "direction"}),
		fromSocket: toService, toSocket: toClient, shown: map[string]int{},
	}
	if command == "outlet" {
		m.fromSocket, m.toSocket = toClient, toService
	}
	r.MustRegister(m.active, m.total, m.bytes)
	return m
}

// hold returns the metrics of one service, which are shown until it is released as
// often as it was held and retained.
func (m *streamMetrics) hold(name string) *serviceMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shown[name]++
	s := &serviceMetrics{
		active:     m.active.WithLabelValues(name),
		fromSocket: m.bytes.WithLabelValues(name, m.fromSocket),
		toSocket:   m.bytes.WithLabelValues(name, m.toSocket),
		total:      m.total.MustCurryWith(prometheus.Labels{"service": name}),
	}
	s.ok = s.total.WithLabelValues(code.OK.String())
	return s
}

// retain holds a service that is held already, and reports whether it is.
func (m *streamMetrics) retain(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown[name] == 0 {
		return false
	}
	m.shown[name]++
	return true
}

// release ends what hold or retain began. Who held the service last counts nothing for
// it any more.
func (m *streamMetrics) release(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown[name]--; m.shown[name] > 0 {
		return
	}
	delete(m.shown, name)
	service := prometheus.Labels{"service": name}
	m.active.DeletePartialMatch(service)
	m.total.DeletePartialMatch(service)
	m.bytes.DeletePartialMatch(service)
}

// serviceMetrics are the streamMetrics of one service.
type serviceMetrics struct {
	active               prometheus.Gauge
	total                *prometheus.CounterVec // code
	ok                   prometheus.Counter     // total's, at hand for the usual end
	fromSocket, toSocket prometheus.Counter
}

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
