package app

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// idleLooks is how many times within its idle time a connection is looked at. It takes up
// to four looks, and two round trips, more than that to know that nothing moves: a sixth
// of the time.
const idleLooks = 24

// A serviceLimits is what the connections of one service share at this process: how
// many there may be, how fast they may be together, and for how long one may be
// quiet. It can be changed while they run.
type serviceLimits struct {
	name    string // the service's
	setting string // what bounds its connections, as whoever made the settings calls it

	fromSocket, toSocket pump.Rate

	mu   sync.Mutex
	most int           // connections; 0: no limit
	idle time.Duration // 0: no limit
	open int           // connections that have a place
	live map[*tunnel.Stream]limited
	look *time.Timer // has lookAround run, while there is an idle time and a connection; nil before the first
	due  bool        // it is set, or lookAround runs

	told quiet
}

// A limited stream is one that is kept to a service's limits.
type limited struct {
	socket *pump.Limited     // at its other side; nil: a program in this process has that
	watch  *tunnel.IdleWatch // nil while there is no idle time
}

func newServiceLimits(name string) *serviceLimits {
	return &serviceLimits{name: name, setting: "limits.connections", live: map[*tunnel.Stream]limited{}}
}

// set puts limits into force, for connections that are open, too: only that there are
// more of them than may be cuts none. An idle time where there was none begins now.
func (l *serviceLimits) set(c config.ServiceLimits) {
	l.fromSocket.Set(c.BytesPerSecond)
	l.toSocket.Set(c.BytesPerSecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = c.Connections
	if l.idle == c.IdleTimeout {
		return
	}
	began := l.idle == 0
	l.idle = c.IdleTimeout
	if began {
		for st, s := range l.live {
			s.watch = st.WatchIdle()
			l.live[st] = s
		}
	}
	l.due = false // the next look is not where it was
	l.lookLocked()
}

// lookLocked has the connections looked at in a while, if that is of any use.
func (l *serviceLimits) lookLocked() {
	if l.due || l.idle == 0 || len(l.live) == 0 {
		return
	}
	l.due = true
	every := max(l.idle/idleLooks, time.Millisecond)
	if l.look == nil {
		l.look = time.AfterFunc(every, l.lookAround)
		return
	}
	l.look.Reset(every)
}

// lookAround ends the connections that have been idle for too long.
func (l *serviceLimits) lookAround() {
	idle, live := l.watched()
	for st, s := range live {
		if s.watch.Look() < idle {
			continue
		}
		_ = st.Reset(code.IdleTimeout) // first: the first end of a copy is what it has ended with
		if s.socket != nil {
			_ = sock.ResetClose(s.socket)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = false
	l.lookLocked()
}

// watched returns the connections that are to be looked at, and for how long one may be
// idle.
func (l *serviceLimits) watched() (idle time.Duration, live map[*tunnel.Stream]limited) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == 0 {
		return 0, nil
	}
	return l.idle, maps.Clone(l.live)
}

// enter takes a place for a connection, which leave gives back, or says that there is
// none.
func (l *serviceLimits) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && l.open >= l.most {
		return fmt.Errorf("%q has %d connections, which is the most (%s): try again when one has ended", l.name, l.open, l.setting)
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
	l.hold(st, limited{socket: lc})
	return lc
}

// keep keeps a stream to the limits that a program in this process reads and writes
// itself. Where it is idle for too long it is reset. unbind is to be called when it has
// ended.
func (l *serviceLimits) keep(st *tunnel.Stream) {
	st.Keep(pump.NewPace(&l.toSocket), pump.NewPace(&l.fromSocket))
	l.hold(st, limited{})
}

func (l *serviceLimits) hold(st *tunnel.Stream, s limited) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle > 0 {
		s.watch = st.WatchIdle()
	}
	l.live[st] = s
	l.lookLocked()
}

// unbind ends what bind or keep has begun.
func (l *serviceLimits) unbind(st *tunnel.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, st)
	if len(l.live) == 0 && l.look != nil && l.look.Stop() {
		l.due = false
	}
}

// admit resets the connection of a client that has no place, and returns how that ended.
func (c *inletClient) admit() (e streamEnd, ok bool) {
	if c.full == nil {
		return streamEnd{}, true
	}
	_ = sock.ResetClose(c.conn)
	e = streamEnd{label: code.Limit.String(), reason: c.full.Error()}
	e.hushed = c.service.bounds.told.level(e.reason, zapcore.WarnLevel) == zapcore.DebugLevel
	c.in.auditUnopened(c.service, c.service.Outlet, c.live.client, e)
	return e, false
}
