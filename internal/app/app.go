// Package app owns the wiring of inlet, outlet and relay: it turns settings
// into running processes made of the packages below it, decides what is
// logged, counted and ready, and stops everything in order. It reads no
// settings and no command line, and has no protocol of its own.
package app

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/internal/audit"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/sandbox"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/systemd"
	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// notSentLowat bounds what waits unsent in the kernel below a channel, in
	// bytes, so that control records overtake data.
	notSentLowat     = 128 << 10
	leastUserTimeout = 30 * time.Second
	// cutTime bounds, after the drain time, how long streams may take to end
	// once they are cut.
	cutTime = 5 * time.Second
	// lastWait is how long, once this process is to stop, clients may wait for a
	// stream, and streams that are cut may take to say so.
	lastWait = time.Second
)

// Lines about paths: so many at once, when a relay of many channels dies, and so
// many a second for good. Paths can be cut by whoever carries them.
const (
	pathLines          = 1000
	pathLinesPerSecond = 10
)

// errShutdown is the cause of everything that ends because this process stops.
var errShutdown = errors.New("this process is stopping")

// A base is what the processes share.
type base struct {
	daemon

	common *config.Common
	obs    *obs.Obs
	log    *zap.Logger
	keys   *identityKeeper
	file   *settingsKeeper
	local  *channel.Local // keys'
	trust  *trust
	member *membership
	audit  *audit.Log    // nil: there is none
	tracer *trace.Tracer // nil: nothing is traced

	started time.Time

	// See Own. Set before Run.
	owned   bool
	manager *systemd.Manager // nil: there is none
	hangup  chan struct{}    // capacity 1: files are to be read again; the manager is told
	needs   sandbox.Files    // what this kind of process opens
	// confined says that nothing else can be opened, resolves that hosts can be looked up
	// all the same. Set before Run starts anything.
	confined, resolves bool

	// What channels share; not a relay's.
	buffers *channel.Buffers
	paths   *pathMetrics
	flaps   *rate.Limiter // lines about paths

	draining atomic.Int64 // see drainTimeout
}

// drainTimeout returns how long a stopping process waits for its streams.
func (b *base) drainTimeout() time.Duration { return time.Duration(b.draining.Load()) }

// newBase reads the identity and opens the audit log. Its errors name the setting
// at fault. A relay has no channels.
func newBase(c *config.Common, channels *config.Channels, credentials *config.Trust, known knowing, o *obs.Obs) (*base, error) {
	name := ""
	if channels != nil {
		name = channels.Name
	}
	memory := identity.NewMemory(0)
	t, err := newTrust(credentials, c, memory)
	if err != nil {
		return nil, err
	}
	k, err := newIdentityKeeper(c, channel.LocalConfig{
		Name: name, Memory: memory, Admit: t.admit, Skew: c.ClockSkew,
		Known: func(p channel.Peer) bool {
			t.met(p) // before the memory, after which one that has diverged comes no further
			return known(t.judge(p).Peer)
		},
	}, o)
	if err != nil {
		return nil, err
	}
	b := &base{
		common: c, obs: o, log: o.Log, keys: k, file: newSettingsKeeper(c, o), local: k.local, trust: t, started: time.Now(),
		hangup: make(chan struct{}, 1),
	}
	b.draining.Store(int64(c.DrainTimeout))
	b.keys.beyond, b.file.beyond = b.beyond, b.beyond
	if b.member, err = b.newMembership(credentials); err != nil {
		return nil, err
	}
	if channels != nil {
		b.buffers = channel.NewBuffers(channels.Buffers)
		b.paths = newPathMetrics(o.Registry, o.Command(), b.buffers)
		newGauge(o.Registry, "culvert_"+o.Command()+"_draining", "1 while the process takes nothing new, since it is stopping, else 0.", b.drainingGauge)
		b.flaps = rate.NewLimiter(pathLinesPerSecond, pathLines)
	}
	if b.audit, err = b.openAudit(); err != nil {
		return nil, err
	}
	return b, nil
}

// Reload looks at the identity file, at the settings file and at the audit log's
// now, and not only in a moment: a key that was replaced is used from then on, what
// can be changed of the settings holds, and a log that was renamed begins anew.
func (b *base) Reload() {
	if b.manager.Listens() {
		poke(b.hangup) // and it is told before and afterwards
		return
	}
	b.reread()
}

// reread has all files looked at, and returns what is closed when the identity and the
// settings have been.
func (b *base) reread() []<-chan struct{} {
	b.audit.Reopen()
	return []<-chan struct{}{b.keys.ask(), b.file.ask()}
}

// Identifier returns the process's own identifier, by which others know it.
func (b *base) Identifier() identity.Identifier { return b.local.Identifier() }

// drainingGauge is 1 from the moment on that the process is to stop.
func (b *base) drainingGauge() float64 {
	if state, _ := b.obs.Ready.CheckOne("process"); errors.Is(state.Err, errShutdown) {
		return 1
	}
	return 0
}

// userTimeout bounds how long the kernel waits for the far end of a leg. It is
// no less than what a slow link can need to make room; silence is noticed by
// PINGs, sooner.
func (b *base) userTimeout() time.Duration { return max(2*b.common.Keepalive, leastUserTimeout) }

// tune sets what the socket under a channel needs: a hole in the network is
// noticed by the side that sends, and little waits in the kernel. A socket
// that cannot is used as it is.
func (b *base) tune(nc net.Conn) {
	_ = sock.SetUserTimeout(nc, b.userTimeout())
	_ = sock.SetNotSentLowat(nc, notSentLowat)
}

// quietly logs what can come again and again, and is the same when message and
// text are: at debug, when it has been told not long ago.
func (b *base) quietly(told *quiet, loud zapcore.Level, message, text string, fields ...zap.Field) {
	b.log.Log(told.level(message+text, loud), message, fields...)
}

// pathLevel returns at which level a change of path is logged.
func (b *base) pathLevel() zapcore.Level {
	if b.flaps.Allow() {
		return zapcore.InfoLevel
	}
	return zapcore.DebugLevel
}

// ended returns a channel that is closed when wg is done.
func ended(wg *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends when what wg counts does
		defer close(done)
		wg.Wait()
	}()
	return done
}

// waitFor waits until done is closed, at most for d, and reports whether it is.
func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// listKey returns the key path of a setting in a list: "services[0].listen", or
// "listen[0]" where name is "".
func listKey(list string, i int, name string) string {
	key := fmt.Sprintf("%s[%d]", list, i)
	if name != "" {
		key += "." + name
	}
	return key
}
