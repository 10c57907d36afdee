package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A lastReload shows how the last reading of the settings file went. The start counts
// as one that went well.
type lastReload struct {
	success prometheus.Gauge
	at      prometheus.Gauge // of the last success
}

func newLastReload(r prometheus.Registerer) *lastReload {
	l := &lastReload{
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "culvert_config_last_reload_success", Help: "1 when the settings file could be taken the last time that it was read, else 0: what held before holds.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "culvert_config_last_reload_success_timestamp_seconds", Help: "When the settings that hold were read.",
		}),
	}
	r.MustRegister(l.success, l.at)
	l.note(nil)
	return l
}

// note notes how a reading of the file went.
func (l *lastReload) note(err error) {
	if err != nil {
		l.success.Set(0)
		return
	}
	l.success.Set(1)
	l.at.Set(float64(time.Now().UnixMilli()) / 1000)
}
