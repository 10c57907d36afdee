package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A serviceLimits is what the connections of one service share at this process: how
// many there may be, how fast they may be together, and for how long one may be
// quiet. It can be changed while they run.
type serviceLimits struct {
	name string // the service's

	fromSocket, toSocket pump.Rate

	mu   sync.Mutex
	most int           // connections; 0: no limit
	idle time.Duration // 0: no limit
	open int           // connections that have a place
	live map[*pump.Limited]func()

	told quiet
}

func newServiceLimits(name string) *serviceLimits {
	return &serviceLimits{name: name, live: map[*pump.Limited]func(){}}
}

// set puts limits into force, for connections that are open, too: only that there are
// more of them than may be cuts none.
func (l *serviceLimits) set(c config.ServiceLimits) {
	l.fromSocket.Set(c.BytesPerSecond)
	l.toSocket.Set(c.BytesPerSecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = c.Connections
	if l.idle == c.IdleTimeout {
		return
	}
	l.idle = c.IdleTimeout
	for lc, end := range l.live {
		lc.Watch(l.idle, end)
	}
}

// enter takes a place for a connection, which leave gives back, or says that there is
// none.
func (l *serviceLimits) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && l.open >= l.most {
		return fmt.Errorf("%q has %d connections, which is the most (limits.connections): try again when one has ended", l.name, l.open)
	}
	l.open++
	return nil
}

func (l *serviceLimits) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
}

// bind returns a connection's socket as it is kept to the limits. Where it is idle for
// too long it is reset, and so is st. unbind is to be called when both have ended.
func (l *serviceLimits) bind(nc sock.Conn, st *tunnel.Stream) *pump.Limited {
	lc := pump.NewLimited(nc, &l.fromSocket, &l.toSocket)
	end := func() {
		_ = st.Reset(code.IdleTimeout) // first: the first end of a copy is what it has ended with
		_ = sock.ResetClose(lc)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live[lc] = end
	lc.Watch(l.idle, end)
	return lc
}

func (l *serviceLimits) unbind(lc *pump.Limited) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, lc)
	lc.Watch(0, nil)
}

// copy is copyStream within the limits.
func (l *serviceLimits) copy(ctx context.Context, nc sock.Conn, st *tunnel.Stream, socketReset code.Code, sp *trace.Span) streamEnd {
	lc := l.bind(nc, st)
	defer l.unbind(lc)
	return copyStream(ctx, lc, st, socketReset, sp)
}

// admit takes a place for a client, which leave gives back, or resets its connection
// and returns how that ended.
func (in *Inlet) admit(s *inletService, nc sock.Conn, client string) (e streamEnd, ok bool) {
	err := s.bounds.enter()
	if err == nil {
		return streamEnd{}, true
	}
	_ = sock.ResetClose(nc)
	e = streamEnd{label: code.Limit.String(), reason: err.Error()}
	e.hushed = s.bounds.told.level(e.reason, zapcore.WarnLevel) == zapcore.DebugLevel
	in.auditUnopened(s, s.Outlet, client, e)
	return e, false
}
