package app

import (
	"regexp"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

const (
	// quietFor is how long an error that has been logged is not logged again.
	quietFor = time.Minute
	// quietKinds bounds how many different errors are remembered, and so how
	// many lines there can be in that time.
	quietKinds = 128
	// quietEach bounds those of one peer, so that none takes all of them.
	quietEach = 4
)

// A quiet keeps errors of retries from filling the log: a new one is told at
// once, the same again at most once in quietFor. The zero quiet is ready.
type quiet struct {
	mu   sync.Mutex
	told map[string]time.Time
}

// ephemeral is what differs between two errors of the same kind, in the words
// of package net for a socket: its local address, and the port of the other
// side, which is new each time where the other side has dialled.
var ephemeral = regexp.MustCompile(`\S+->(\S+):\d+`)

// level returns at which level an error with that text is to be logged: loud
// or debug.
func (q *quiet) level(text string, loud zapcore.Level) zapcore.Level {
	key := ephemeral.ReplaceAllString(text, "$1")
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tidyLocked(time.Now())
	return q.levelLocked(key, loud)
}

// warning is level for a warning about what a peer has caused, of which there is a
// bound for each peer, too.
func (q *quiet) warning(peer, text string) zapcore.Level {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tidyLocked(time.Now())
	mine := 0
	for k := range q.told {
		if strings.HasPrefix(k, peer) {
			mine++
		}
	}
	if mine >= quietEach {
		return zapcore.DebugLevel
	}
	return q.levelLocked(peer+text, zapcore.WarnLevel)
}

// tidyLocked forgets what may be told again.
func (q *quiet) tidyLocked(now time.Time) {
	for k, at := range q.told {
		if now.Sub(at) >= quietFor {
			delete(q.told, k)
		}
	}
}

func (q *quiet) levelLocked(key string, loud zapcore.Level) zapcore.Level {
	now := time.Now()
	if _, ok := q.told[key]; ok || len(q.told) >= quietKinds {
		return zapcore.DebugLevel
	}
	if q.told == nil {
		q.told = map[string]time.Time{}
	}
	q.told[key] = now
	return loud
}

// forget makes every error new again: what failed works.
func (q *quiet) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.told)
}
