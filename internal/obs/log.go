package obs

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// parseLevel returns the level that a setting names.
func parseLevel(name string) (zapcore.Level, error) {
	switch name {
	case "", "info":
		return zapcore.InfoLevel, nil
	case "debug":
		return zapcore.DebugLevel, nil
	case "warn":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	}
	return 0, fmt.Errorf("log level %q: want debug, info, warn or error", name)
}

// newLog makes the logger, with that level, and what it writes to.
func newLog(cfg Config, level zapcore.LevelEnabler) (*zap.Logger, *sink, error) {
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
		return nil, nil, fmt.Errorf("log format %q: want console or json", cfg.LogFormat)
	}
	out := cfg.LogOutput
	if out == nil {
		out = os.Stderr
	}
	s := newSink(out, func(lines int) []byte {
		// A clone: it is used beside the log's own.
		b, err := encoder.Clone().EncodeEntry(zapcore.Entry{
			Level: zapcore.WarnLevel, Time: time.Now(), LoggerName: cfg.Command,
			Message: "lines of this log are missing here, whoever reads it was too slow",
		}, []zapcore.Field{zap.Int("lines", lines)})
		if err != nil {
			return nil
		}
		defer b.Free()
		return bytes.Clone(b.Bytes())
	})
	return zap.New(zapcore.NewCore(encoder, s, level), zap.ErrorOutput(s)).Named(cfg.Command), s, nil
}
