// Package obs owns what a process shows of itself: its log (zap), its metrics
// (a Prometheus registry of its own), whether it is ready and why not, and the
// HTTP servers for all that. There are two. The metrics server may face a
// network and tells little; the admin server also serves /status, and is for
// this machine only.
//
// It knows nothing of channels and relays: what is ready, counted and shown is
// handed in.
package obs

import (
	"context"
	"fmt"
	"io"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
)

// A Config says what to make. The zero value of every field but Command has a
// meaning.
type Config struct {
	Command   string    // inlet, outlet or relay: names the log and begins the metrics' names
	LogFormat string    // console or json; "": console
	LogLevel  string    // debug, info, warn or error; "": info
	LogOutput io.Writer // nil: standard error
}

// An Obs holds one process's log, metrics and readiness. It starts nothing.
type Obs struct {
	Log      *zap.Logger
	Registry *prometheus.Registry
	Ready    *Ready

	command string
	sink    *sink
	level   zap.AtomicLevel
}

var commandForm = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// New makes an Obs whose registry has the collectors of the Go runtime and of
// the process, the gauges culvert_build_info and culvert_COMMAND_ready, and the
// counter culvert_log_dropped_total.
func New(cfg Config) (*Obs, error) {
	if !commandForm.MatchString(cfg.Command) {
		return nil, fmt.Errorf("command %q cannot begin a metric's name: want letters and digits", cfg.Command)
	}
	o := &Obs{Registry: prometheus.NewRegistry(), Ready: &Ready{}, command: cfg.Command, level: zap.NewAtomicLevel()}
	if err := o.SetLogLevel(cfg.LogLevel); err != nil {
		return nil, err
	}
	log, out, err := newLog(cfg, o.level)
	if err != nil {
		return nil, err
	}
	o.Log, o.sink = log, out
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		ReadBuild().gauge(),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "culvert_" + cfg.Command + "_ready",
			Help: "Whether everything that /readyz names is ready (1) or not (0).",
		}, o.readyGauge),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "culvert_log_dropped_total",
			Help: "Lines of the log that were dropped, since whoever reads it was too slow or they could not be written.",
		}, func() float64 { return float64(out.dropped.Load()) }),
	} {
		if err := o.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return o, nil
}

// SetLogLevel makes the log have lines of that level and above from now on: debug,
// info, warn or error, as in [Config].
func (o *Obs) SetLogLevel(name string) error {
	level, err := parseLevel(name)
	if err != nil {
		return err
	}
	o.level.SetLevel(level)
	return nil
}

// ServeLog keeps those who log from waiting for whoever reads the log, until ctx
// ends: up to 1 MiB of lines wait, and what does not fit is dropped, counted, and
// told of in its place. Then it writes what is left, for 1 s at most. Before and
// afterwards each line is written as it comes. It is called once.
func (o *Obs) ServeLog(ctx context.Context) { o.sink.serve(ctx, logFlush) }

// Command returns what [Config.Command] was.
func (o *Obs) Command() string { return o.command }

// FlushLog waits until all that was logged is written, or ctx ends.
func (o *Obs) FlushLog(ctx context.Context) { o.sink.flush(ctx) }

func (o *Obs) readyGauge() float64 {
	if ok, _ := o.Ready.Check(); ok {
		return 1
	}
	return 0
}
