package app

import (
	"context"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
)

// A settingsKeeper follows the settings file, and puts what it says into force as
// far as a process that runs can. It looks at the file by its name, as
// identityKeeper does, and for the same reason. A file that cannot be taken changes
// nothing.
type settingsKeeper struct {
	file string // "": there is none
	log  *zap.Logger

	*fileFollower
	went   *lastReload
	reread func() (*revision, error) // nil: nobody follows. Set before watch

	// Of the goroutine of watch, and of the constructor before it.
	last os.FileInfo // of the file when it was last read; nil: there was none
	seen os.FileInfo // of the file when it was last looked at
}

// A revision is a settings file that was read, and found good as a whole.
type revision struct {
	restart []string     // keys of what is not as it was at the start, and cannot be changed without another
	apply   func() error // puts the rest into force, or changes nothing
}

// newSettingsKeeper returns the keeper of the file that the settings were read from.
func newSettingsKeeper(c *config.Common, o *obs.Obs) *settingsKeeper {
	f := newFileFollower(o.Registry,
		"culvert_config_reloads_total", "Times that the settings file was read again, by whether it could be taken.",
		"culvert_config_file_in_use", "1 while the process works as its settings file says, 0 while the file cannot be taken, or a part of it waits for a restart.")
	return &settingsKeeper{file: c.File(), log: o.Log, fileFollower: f, went: newLastReload(o.Registry), last: c.FileInfo(), seen: c.FileInfo()}
}

// follow has the file read by reread whenever it has changed.
func (k *settingsKeeper) follow(reread func() (*revision, error)) { k.reread = reread }

// watch follows the file until ctx ends.
func (k *settingsKeeper) watch(ctx context.Context) {
	if k.file == "" || k.reread == nil || !regular(k.last) {
		k.end()
		return // flags and variables stay as they are, and what came by a pipe cannot be read again
	}
	k.run(ctx, k.changed, k.read)
}

// stat returns what is known of the file, nil if there is none.
func (k *settingsKeeper) stat() os.FileInfo {
	info, err := os.Stat(k.file)
	if err != nil {
		return nil
	}
	return info
}

// regular reports whether a file can be read again and again.
func regular(info os.FileInfo) bool { return info != nil && info.Mode().IsRegular() }

// sameState is sameFile for files that may not be there.
func sameState(was, is os.FileInfo) bool {
	if was == nil || is == nil {
		return was == nil && is == nil
	}
	return sameFile(was, is)
}

// changed reports whether the file is another one than was read, and has been since
// the last look: half of a file that is being written can be good settings, by which
// nobody was meant to be cut.
func (k *settingsKeeper) changed() bool {
	is := k.stat()
	settled := sameState(k.seen, is)
	k.seen = is
	return settled && !sameState(k.last, is)
}

// read takes what the file has. The same failure is told once, unless somebody has
// asked.
func (k *settingsKeeper) read(asked bool) {
	before := k.stat()
	var rev *revision
	var err error
	if before != nil && !regular(before) {
		err = fmt.Errorf("%s is no file that can be read again: want a regular one", k.file) // and reading it might wait for ever
	} else {
		rev, err = k.reread()
	}
	if k.seen = k.stat(); !sameState(before, k.seen) {
		return // it is being written: another look will find it settled
	}
	k.last = before
	if err == nil {
		err = rev.apply()
	}
	k.went.note(err)
	if err != nil {
		err = k.beyond(err)
		if k.fails(err, asked) {
			k.log.Error("settings file cannot be taken, what holds stays", zap.String("file", k.file), zap.Error(err))
		}
		return
	}
	k.failed = ""
	// Counted last of what can be asked for: who sees a reload sees what came of it, too.
	defer k.reloads.WithLabelValues("ok").Inc()
	if len(rev.restart) == 0 {
		k.inUse.Set(1)
		k.log.Info("settings file was read again and holds", zap.String("file", k.file))
		return
	}
	k.inUse.Set(0)
	k.log.Warn("settings file was read again and holds, but for what needs a restart", zap.String("file", k.file), zap.Strings("restart", rev.restart))
}
