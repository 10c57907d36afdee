//go:build unix

package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
)

// A followedFile is a settings file with a keeper whose looks the test makes.
type followedFile struct {
	*settingsKeeper
	log    *logBuffer
	reads  int
	err    error // of the next reads
	during func()
}

func keep(t *testing.T, file string) *followedFile {
	t.Helper()
	cfg, err := config.LoadRelay(fileSource(file))
	must(t, err)
	o, log := newObs(t, "relay")
	f := &followedFile{settingsKeeper: newSettingsKeeper(&cfg.Common, o), log: log}
	f.follow(func() (*revision, error) {
		f.reads++
		if f.during != nil {
			f.during()
		}
		return &revision{apply: func() error { return nil }}, f.err
	})
	return f
}

// look is what happens each 2 s, so many times. It returns how often the file was
// read.
func (f *followedFile) look(times int) int {
	before := f.reads
	for range times {
		if f.changed() {
			f.read(false)
		}
	}
	return f.reads - before
}

const relayText = "identity: a.key\nlisten: [tcp://127.0.0.1:0]\nregister: []\n"

// A file is read again when it has changed and has then been left alone for a look;
// what was read of one that is being written does not count.
func TestSettingsFileIsReadWhenSettled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.yaml")
	must(t, os.WriteFile(file, []byte(relayText), 0o600))
	f := keep(t, file)
	if f.look(2) != 0 {
		t.Error("a file that has not changed was read")
	}
	for i := range 3 { // it is written for so long
		must(t, os.WriteFile(file, []byte(relayText+"#"+string(make([]byte, i+1))), 0o600))
		if f.look(1) != 0 {
			t.Error("half of a file was read")
		}
	}
	if f.look(3) != 1 {
		t.Error("want the file to be read once, when it has settled")
	}
	replaceFile(t, file, relayText)
	f.during = func() {
		f.during = nil
		replaceFile(t, file, relayText+"# more\n")
	}
	if f.look(2) != 1 || metric(t, f.log.obs, "culvert_config_reloads_total", "ok") != 1 {
		t.Error("what was read while the file was exchanged counts")
	}
	if f.look(2) != 1 {
		t.Error("the file that was exchanged while it was read is never read")
	}
}

// One failure is told once, an answer to somebody who has asked each time; a file
// that is gone, or cannot be read again, is a failure.
func TestSettingsFileFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.yaml")
	must(t, os.WriteFile(file, []byte(relayText), 0o600))
	f := keep(t, file)
	failures := func() int {
		return len(f.log.lines(t, map[string]string{"msg": "settings file cannot be taken, what holds stays"}))
	}
	f.err = errors.New("it is bad")
	for i, asked := range []bool{false, false, true, true, false} {
		f.read(asked)
		if got, want := failures(), []int{1, 1, 2, 3, 3}[i]; got != want {
			t.Errorf("read %d: told %d times, want %d", i, got, want)
		}
	}
	f.err = nil
	must(t, os.Remove(file))
	if f.look(1) != 0 || f.look(2) != 1 {
		t.Error("want a file that has gone to be read once, when that has settled")
	}
	f.err = nil
	must(t, syscall.Mkfifo(file, 0o600))
	before := f.reads
	f.read(true)
	if f.reads != before || failures() != 4 {
		t.Error("a FIFO was read, which may wait for ever, or it was not told of")
	}
}

// A process without a file, or with one that came by a pipe, follows none, and does
// not mind being asked.
func TestSettingsWithoutAFile(t *testing.T) {
	o, _ := newObs(t, "relay")
	k := newSettingsKeeper(&config.Common{}, o)
	var reads atomic.Int32
	k.follow(func() (*revision, error) { reads.Add(1); return &revision{apply: func() error { return nil }}, nil })
	k.every = time.Millisecond
	for range 3 {
		k.ask()
	}
	k.watch(context.Background()) // returns at once
	if reads.Load() != 0 {
		t.Error("settings were read again that no file has")
	}
}
