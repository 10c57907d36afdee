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
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
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
}

var commandForm = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// New makes an Obs whose registry has the collectors of the Go runtime and of
// the process, and the gauge culvert_COMMAND_ready.
func New(cfg Config) (*Obs, error) {
	if !commandForm.MatchString(cfg.Command) {
		return nil, fmt.Errorf("command %q cannot begin a metric's name: want letters and digits", cfg.Command)
	}
	log, err := newLog(cfg)
	if err != nil {
		return nil, err
	}
	o := &Obs{Log: log, Registry: prometheus.NewRegistry(), Ready: &Ready{}, command: cfg.Command}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "culvert_" + cfg.Command + "_ready",
			Help: "Whether everything that /readyz names is ready (1) or not (0).",
		}, o.readyGauge),
	} {
		if err := o.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return o, nil
}

func (o *Obs) readyGauge() float64 {
	if ok, _ := o.Ready.Check(); ok {
		return 1
	}
	return 0
}

// newLog makes the logger. It writes each entry as it comes, so that nothing
// needs flushing at the end.
func newLog(cfg Config) (*zap.Logger, error) {
	level := zapcore.InfoLevel
	switch cfg.LogLevel {
	case "", "info":
	case "debug":
		level = zapcore.DebugLevel
	case "warn":
		level = zapcore.WarnLevel
	case "error":
		level = zapcore.ErrorLevel
	default:
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", cfg.LogLevel)
	}
	ec := zap.NewProductionEncoderConfig()
	ec.TimeKey = "time"
	ec.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch cfg.LogFormat {
	case "", "console":
		ec.EncodeTime = zapcore.TimeEncoderOfLayout("2006-01-02T15:04:05.000Z0700")
		ec.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(ec)
	case "json":
		ec.EncodeTime = func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
			zapcore.RFC3339NanoTimeEncoder(t.UTC(), enc)
		}
		encoder = zapcore.NewJSONEncoder(ec)
	default:
		return nil, fmt.Errorf("log format %q: want console or json", cfg.LogFormat)
	}
	out := cfg.LogOutput
	if out == nil {
		out = os.Stderr
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level)
	return zap.New(core, zap.ErrorOutput(zapcore.Lock(zapcore.AddSync(out)))).Named(cfg.Command), nil
}
