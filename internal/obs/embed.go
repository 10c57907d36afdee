package obs

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Embed makes an Obs for a part of somebody else's program: it logs to that program's
// log, at the level of that, and its registry has nothing of the process as a whole.
func Embed(command string, log *zap.Logger) *Obs {
	return &Obs{
		Log: log.Named("culvert").Named(command), Registry: prometheus.NewRegistry(), Ready: &Ready{},
		command: command, sink: nil, level: zap.NewAtomicLevel(),
	}
}
