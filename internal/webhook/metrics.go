package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reviewMetrics count reviews.
type reviewMetrics struct {
	total   *prometheus.CounterVec // result
	seconds prometheus.Histogram
}

func newReviewMetrics(r prometheus.Registerer) *reviewMetrics {
	m := &reviewMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "culvert_webhook_reviews_total",
			Help: "Admission reviews answered, by result: injected, unchanged, refused; invalid for what is no review; overloaded for those that found no place in their time; gone for those whose callers hung up before.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "culvert_webhook_review_duration_seconds",
			Help:    "Time from the beginning of a review to its decision.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	r.MustRegister(m.total, m.seconds)
	for _, result := range []string{resultInjected, resultUnchanged, resultRefused, resultInvalid, resultOverloaded, resultGone} {
		m.total.WithLabelValues(result) // shown from the start
	}
	return m
}

func (m *reviewMetrics) count(result string, begun time.Time) {
	m.total.WithLabelValues(result).Inc()
	m.seconds.Observe(time.Since(begun).Seconds())
}
