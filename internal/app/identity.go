package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

const (
	// identityEvery is how often a process looks whether its identity file is
	// another one. It does so by name, which works wherever files are: a
	// Kubernetes Secret is exchanged by a link above it, and what watches one
	// file or folder would have to know of all links on the way.
	identityEvery = 2 * time.Second
	// expiresSoon is how long before its end a key is worth a warning.
	expiresSoon = 30 * 24 * time.Hour
	// stateAgain is the pause after what is known of others could not be written.
	stateAgain = 10 * time.Second
)

// A knowing says whether a peer may use anything here at all.
type knowing func(policy.Peer) bool

// nobody is for a process that nobody calls.
func nobody(policy.Peer) bool { return false }

// An identityKeeper keeps what the process shows of itself as its identity file
// has it, and what it knows of others in the folder `state`. A file that cannot
// be taken changes nothing.
type identityKeeper struct {
	path   string
	local  *channel.Local
	memory *identity.Memory
	state  string // the file; "": nowhere
	log    *zap.Logger

	*fileFollower
	unsaved prometheus.Counter

	// What else is to know of a key that was taken; nil: nothing. Set before watch.
	taken func(*identity.Identity)

	// Of the goroutine of watch, and of the constructor before it.
	current *identity.Identity
	last    os.FileInfo // of the file when it was last read; nil: it could not be
}

// newIdentityKeeper reads the identity and, into lc's Memory, what is known of
// others. Its errors name the setting at fault.
func newIdentityKeeper(c *config.Common, lc channel.LocalConfig, o *obs.Obs) (*identityKeeper, error) {
	k := &identityKeeper{path: c.Identity, memory: lc.Memory, log: o.Log}
	if k.memory == nil {
		k.memory = identity.NewMemory(0)
	}
	if c.State != "" {
		if err := makeFolder(c.State, o.Log); err != nil {
			return nil, c.Fault("state", err)
		}
		k.state = c.Histories()
		if err := k.memory.Sync(k.state); err != nil {
			return nil, c.Fault("state", err)
		}
	}
	id, err := c.Held(), error(nil)
	if id == nil {
		k.last, _ = os.Stat(k.path) // before it is read: what comes between is seen later
		id, err = identity.ReadFile(k.path)
	}
	if err != nil {
		return nil, c.Fault("identity", err)
	}
	k.current = id
	lc.Memory = k.memory
	if k.local, err = channel.NewLocalWith(id, lc); err != nil {
		return nil, c.Fault("identity", err)
	}
	k.register(o.Registry)
	return k, nil
}

// makeFolder makes the folder for what is to be known after a restart, at the first
// start. The folder that it stands in is to be there: what is mistyped, or a volume
// that is not mounted, rather fails.
func makeFolder(path string, log *zap.Logger) error {
	switch err := os.Mkdir(path, 0o700); {
	case err == nil:
		log.Info("folder made", zap.String("state", path))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: make the folder above it", err)
	}
	return nil // whether what is there can be used is seen when it is
}

func (k *identityKeeper) register(r prometheus.Registerer) {
	newGauge(r, "culvert_channel_identity_changes", "Changes in the history of this process's identity: 1 and one for each time that its key was replaced.",
		func() float64 { return float64(k.local.History().Len()) })
	newGauge(r, "culvert_channel_identity_key_created_timestamp_seconds", "When the key of this process's identity was made.",
		func() float64 { return float64(k.local.History().Created().Unix()) })
	newGauge(r, "culvert_channel_identity_key_expires_timestamp_seconds", "When the key of this process's identity expires.",
		func() float64 { return float64(k.local.History().Expires().Unix()) })
	newGauge(r, "culvert_channel_identities_remembered", "Identities whose key was replaced, and whose newest history is known.",
		func() float64 { return float64(k.memory.Len()) })
	k.fileFollower = newFileFollower(r,
		"culvert_channel_identity_reloads_total", "Times that the identity file was another one, by whether it could be taken.",
		"culvert_channel_identity_file_in_use", "1 while the identity is as its file has it, 0 while the file cannot be taken and an older key is used.")
	k.unsaved = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "culvert_channel_state_failures_total", Help: "Times that the folder state could not be written.",
	})
	r.MustRegister(k.unsaved)
}

// watch follows the identity file until ctx ends.
func (k *identityKeeper) watch(ctx context.Context) {
	k.warn()
	if k.path == "" {
		k.end()
		return // there is no file: whoever has the identity says when its key is another
	}
	k.run(ctx, func() bool {
		info, err := os.Stat(k.path)
		return err != nil || k.failed != "" || !sameFile(k.last, info)
	}, k.read)
}

// sameFile reports whether nothing has happened to a file.
func sameFile(was, is os.FileInfo) bool {
	return was != nil && os.SameFile(was, is) && was.ModTime().Equal(is.ModTime()) && was.Size() == is.Size() && was.Mode() == is.Mode()
}

// read takes what the identity file has. The same failure is told once, unless
// somebody has asked.
func (k *identityKeeper) read(asked bool) {
	k.last, _ = os.Stat(k.path)
	id, err := identity.ReadFile(k.path)
	same := err == nil && id.History().LastHash() == k.local.History().LastHash()
	if err == nil && !same {
		if err = k.local.SetIdentity(id); err == nil {
			k.current = id
			if k.taken != nil {
				k.taken(id)
			}
		}
	}
	if err != nil {
		err = k.beyond(err)
		if k.fails(err, asked) {
			k.log.Error("identity file cannot be taken, the key that is in use stays",
				zap.String("file", k.path), zap.String("code", label(err, code.Internal)), zap.Int("changes", k.local.History().Len()), zap.Error(err))
		}
		return
	}
	repaired := k.failed != ""
	k.failed = ""
	k.inUse.Set(1)
	switch {
	case !same:
		k.reloads.WithLabelValues("ok").Inc()
		k.log.Info("identity has a new key, which handshakes use from now on", k.fields()...)
		k.warn()
	case asked || repaired:
		k.log.Info("identity file has the key that is in use", k.fields()...)
	}
}

func (k *identityKeeper) fields() []zap.Field {
	h := k.local.History()
	return []zap.Field{zap.Stringer("identifier", h.Identifier()), zap.Int("changes", h.Len()), zap.Time("expires", h.Expires())}
}

// warn says that the key ends soon.
func (k *identityKeeper) warn() {
	level := zapcore.DebugLevel
	if time.Until(k.local.History().Expires()) < expiresSoon {
		level = zapcore.WarnLevel
	}
	k.log.Log(level, `identity's key expires: "culvert identity rotate" makes a new one before that, and nothing does after it`, k.fields()...)
}

// remember keeps what is known of others on disk, until ctx ends.
func (k *identityKeeper) remember(ctx context.Context) {
	if k.state == "" {
		return
	}
	var told quiet
	for {
		select {
		case <-k.memory.Changed():
		case <-ctx.Done():
			select {
			case <-k.memory.Changed():
				k.save(&told)
			default:
			}
			return
		}
		for !k.save(&told) {
			if !wait.Sleep(ctx, stateAgain) {
				k.save(&told)
				return
			}
		}
	}
}

// save reports whether what is known is on disk.
func (k *identityKeeper) save(told *quiet) bool {
	err := k.memory.Sync(k.state)
	if err == nil {
		told.forget()
		return true
	}
	k.unsaved.Inc()
	k.log.Log(told.level(err.Error(), zapcore.ErrorLevel), "what is known of peers' identities cannot be kept, and is forgotten when this process ends, trying on", zap.Error(err))
	return false
}
