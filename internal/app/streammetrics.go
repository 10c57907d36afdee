package app

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
)

// unknownService is the label of services that are not in the settings. It is
// no valid name, so no service has it.
const unknownService = "_unknown"

// Directions of bytes, as labels: towards the service or back.
const (
	toService = "to_service"
	toClient  = "to_client"
)

// streamMetrics count the streams of an inlet or an outlet, and have the table of
// those that live. Services are those of the settings, codes those of pkg/code: the
// sets of labels are bounded.
type streamMetrics struct {
	table *streamTable
	inlet bool // what streams have sent goes to the service; else it comes from there

	total *prometheus.CounterVec   // service, code
	took  *prometheus.HistogramVec // service; nil where nothing is waited for

	active, opened, bytes *prometheus.Desc // of the table

	mu sync.Mutex // guards which services are shown, with their labels
}

// openBuckets are those of the times until a stream, or its target, is there: from a
// loopback's to the time-outs.
func openBuckets() []float64 { return []float64{.001, .005, .025, .1, .5, 2.5, 10} }

func newStreamMetrics(r prometheus.Registerer, command string) *streamMetrics {
	prefix := "culvert_" + command
	m := &streamMetrics{
		table: newStreamTable(), inlet: command == string(config.KindInlet),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_streams_total",
			Help: "Proxied connections that have ended, by how they did; ok is a clean end.",
		}, []string{"service", "code"}),
		active: prometheus.NewDesc(prefix+"_streams_active", "Proxied connections that are open.", []string{"service"}, nil),
		opened: prometheus.NewDesc(prefix+"_streams_opened_total", "Proxied connections that have begun, those that were refused included.", []string{"service"}, nil),
		bytes: prometheus.NewDesc(prefix+"_bytes_total",
			"Bytes of proxied connections so far, of those that are open too, without Culvert's own.", []string{"service", "direction"}, nil),
	}
	switch command {
	case string(config.KindInlet):
		m.took = newOpenHistogram(prefix+"_open_seconds", "How long clients have waited for a stream, that for a channel included; of those that have got one.")
	case string(config.KindOutlet):
		m.took = newOpenHistogram(prefix+"_dial_seconds", "How long services' targets have taken to accept; of those that did.")
	}
	r.MustRegister(m, m.total)
	if m.took != nil {
		r.MustRegister(m.took)
	}
	return m
}

func newOpenHistogram(name, help string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: openBuckets()}, []string{"service"})
}

// Describe implements prometheus.Collector.
func (m *streamMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.active
	ch <- m.opened
	ch <- m.bytes
}

// Collect implements prometheus.Collector. The numbers move while streams live, and
// no counter ever goes back.
func (m *streamMetrics) Collect(ch chan<- prometheus.Metric) {
	byName := map[string]streamSums{}
	for c, s := range m.table.sums() {
		if c == &m.table.gone {
			continue
		}
		sums := byName[c.name]
		sums.add(s)
		byName[c.name] = sums
	}
	for name, s := range byName {
		service, client := m.directed(s)
		ch <- prometheus.MustNewConstMetric(m.active, prometheus.GaugeValue, float64(s.active()), name)
		ch <- prometheus.MustNewConstMetric(m.opened, prometheus.CounterValue, float64(s.opened), name)
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(service), name, toService)
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(client), name, toClient)
	}
}

// directed returns what was carried towards the service, and back.
func (m *streamMetrics) directed(s streamSums) (service, client int64) {
	if m.inlet {
		return s.sent, s.received
	}
	return s.received, s.sent
}

// hold returns the metrics of one service, which are shown until it is released as
// often as it was held and retained.
func (m *streamMetrics) hold(name string) *serviceMetrics { return m.holdAt(name, "") }

// holdAt is hold for one of several places where a service is offered, which have
// counts of their own.
func (m *streamMetrics) holdAt(name, place string) *serviceMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &serviceMetrics{count: m.table.service(name, place), total: m.total.MustCurryWith(prometheus.Labels{"service": name})}
	s.ok = s.total.WithLabelValues(code.OK.String())
	if m.took != nil {
		s.took = m.took.WithLabelValues(name)
	}
	return s
}

// retain holds metrics that are held already, and reports whether they are.
func (m *streamMetrics) retain(s *serviceMetrics) bool { return m.table.retain(s.count) }

// release ends what hold or retain began. Who held the service last counts nothing for
// it any more.
func (m *streamMetrics) release(s *serviceMetrics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := s.count.name
	if !m.table.release(s.count) {
		return
	}
	service := prometheus.Labels{"service": name}
	m.total.DeletePartialMatch(service)
	if m.took != nil {
		m.took.DeletePartialMatch(service)
	}
}

// serviceMetrics are the streamMetrics of one service.
type serviceMetrics struct {
	count *serviceCount
	total *prometheus.CounterVec // code
	ok    prometheus.Counter     // total's, at hand for the usual end
	took  prometheus.Observer    // nil where nothing is waited for
}

// ended counts how a stream has ended.
func (m *serviceMetrics) ended(e streamEnd) {
	if e.clean() {
		m.ok.Inc()
	} else {
		m.total.WithLabelValues(e.label).Inc()
	}
}

// waited counts for how long something was waited that began at a time.
func (m *serviceMetrics) waited(began time.Time) {
	if m.took != nil {
		m.took.Observe(time.Since(began).Seconds())
	}
}
