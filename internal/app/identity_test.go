package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

// watched starts a keeper of the identity in a file, which it looks at all the
// time, or only when it is asked.
func watched(t *testing.T, file string, every time.Duration) (*identityKeeper, *logBuffer, func(name string, labels ...string) float64) {
	t.Helper()
	o, log := newObs(t, "inlet")
	k, err := newIdentityKeeper(&config.Common{Identity: file}, channel.LocalConfig{}, o)
	if err != nil {
		t.Fatal(err)
	}
	k.every = every
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { k.watch(ctx) })
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	return k, log, func(name string, labels ...string) float64 {
		return metric(t, o, "culvert_channel_identity_"+name, labels...)
	}
}

// waitLine waits for a line in the log and returns it.
func waitLine(t *testing.T, log *logBuffer, want map[string]string) map[string]any {
	t.Helper()
	var found []map[string]any
	eventually(t, fmt.Sprintf("a line with %v in the log", want), func() bool {
		found = log.lines(t, want)
		return len(found) > 0
	})
	return found[0]
}

// swap puts an identity in the place of a file, as a whole.
func swap(t *testing.T, file string, id *identity.Identity) {
	t.Helper()
	next := file + ".next"
	if err := errors.Join(id.WriteFile(next), os.Rename(next, file)); err != nil {
		t.Fatal(err)
	}
}

func rotate(t *testing.T, id *identity.Identity) *identity.Identity {
	t.Helper()
	next, err := id.Rotate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func readIdentity(t *testing.T, file string) *identity.Identity {
	t.Helper()
	id, err := identity.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A file that cannot be taken changes nothing, is told once and counted, and one
// that can is taken after it: both when it is found and when somebody asks.
func TestIdentityFileThatCannotBeTaken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, file string, old, now *identity.Identity)
		code  string
		want  string
	}{
		{"broken", func(t *testing.T, file string, _, _ *identity.Identity) {
			overwrite(t, file, []byte("-----BEGIN CULVERT PRIVATE KEY-----\n"))
		}, "internal", "cut off"},
		{"empty", func(t *testing.T, file string, _, _ *identity.Identity) { overwrite(t, file, nil) }, "internal", "file is empty"},
		{"public", func(t *testing.T, file string, _, now *identity.Identity) {
			overwrite(t, file, now.History().MarshalPEM())
		}, "internal", "it is public"},
		{"missing", func(t *testing.T, file string, _, _ *identity.Identity) { must(t, os.Remove(file)) }, "internal", "no such file"},
		{"others can read it", func(t *testing.T, file string, _, _ *identity.Identity) { must(t, os.Chmod(file, 0o644)) }, "internal", "others can read or write it"},
		{"older", func(t *testing.T, file string, old, _ *identity.Identity) { swap(t, file, old) }, "rolled_back", "older than one seen before"},
		{"diverged", func(t *testing.T, file string, old, _ *identity.Identity) { swap(t, file, rotate(t, old)) }, "diverged", "stolen or used twice"},
		{"another identity", func(t *testing.T, file string, _, _ *identity.Identity) {
			other, _ := newIdentity(t)
			swap(t, file, readIdentity(t, other))
		}, "internal", "cannot take the place of another one"},
	} {
		for _, mode := range []struct {
			name  string
			every time.Duration
		}{{"found", 5 * time.Millisecond}, {"asked for", time.Hour}} {
			t.Run(tt.name+", "+mode.name, func(t *testing.T) {
				t.Parallel()
				file, _ := newIdentity(t)
				old := readIdentity(t, file)
				now := rotate(t, old)
				swap(t, file, now)
				k, log, value := watched(t, file, mode.every)
				ask := func() {
					if mode.every == time.Hour {
						k.ask()
					}
				}
				tt.spoil(t, file, old, now)
				ask()
				const failed = "identity file cannot be taken, the key that is in use stays"
				line := waitLine(t, log, map[string]string{"msg": failed})
				if line["level"] != "error" || line["code"] != tt.code || !strings.Contains(line["error"].(string), tt.want) {
					t.Errorf("the log says %v, want code %s and %q", line, tt.code, tt.want)
				}
				if got := k.local.History(); got.LastHash() != now.History().LastHash() {
					t.Errorf("the identity was exchanged for one of %d changes", got.Len())
				}
				// Both are set before the line is there; the file is looked at many times more.
				time.Sleep(10 * min(mode.every, 5*time.Millisecond))
				if n, used := value("reloads_total", "failed"), value("file_in_use"); n != 1 || used != 0 {
					t.Errorf("%v failures and in use %v, want 1 and 0", n, used)
				}
				next := rotate(t, now)
				swap(t, file, next)
				ask()
				waitLine(t, log, map[string]string{"msg": "identity has a new key, which handshakes use from now on"})
				if n, used, changes := value("reloads_total", "ok"), value("file_in_use"), value("changes"); n != 1 || used != 1 || changes != 3 {
					t.Errorf("%v reloads, in use %v, %v changes; want 1, 1, 3", n, used, changes)
				}
				if got := log.lines(t, map[string]string{"msg": failed}); len(got) != 1 {
					t.Errorf("the failure was told %d times: %v", len(got), got)
				}
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overwrite changes a file in its place, as no rotation does.
func overwrite(t *testing.T, file string, data []byte) {
	t.Helper()
	next := file + ".next" // as a whole: what watches the file is not to read half of it
	must(t, errors.Join(os.WriteFile(next, data, 0o600), os.Rename(next, file)))
}

// Kubernetes exchanges a Secret by a link above it: name and link of the file
// itself stay as they are.
func TestIdentityInASecret(t *testing.T) {
	t.Parallel()
	first, _ := newIdentity(t)
	id := readIdentity(t, first)
	volume := t.TempDir()
	put := func(version string, id *identity.Identity) {
		t.Helper()
		dir := filepath.Join(volume, version)
		must(t, errors.Join(os.Mkdir(dir, 0o755), id.WriteFile(filepath.Join(dir, "inlet.key")), os.Chmod(filepath.Join(dir, "inlet.key"), 0o440),
			os.Symlink(version, filepath.Join(volume, "..data_tmp")), os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data"))))
	}
	put("..1", id)
	file := filepath.Join(volume, "inlet.key")
	must(t, os.Symlink("..data/inlet.key", file))
	k, log, _ := watched(t, file, 5*time.Millisecond)
	put("..2", rotate(t, id))
	must(t, os.RemoveAll(filepath.Join(volume, "..1")))
	waitLine(t, log, map[string]string{"msg": "identity has a new key, which handshakes use from now on"})
	if n := k.local.History().Len(); n != 2 {
		t.Errorf("%d changes, want 2", n)
	}
}

// Whoever asks hears that nothing has changed.
func TestReloadOfTheSame(t *testing.T) {
	t.Parallel()
	file, _ := newIdentity(t)
	k, log, value := watched(t, file, time.Hour)
	k.ask()
	waitLine(t, log, map[string]string{"msg": "identity file has the key that is in use"})
	if n := value("reloads_total", "ok") + value("reloads_total", "failed"); n != 0 {
		t.Errorf("%v reloads, want none", n)
	}
}

// A key that is about to expire is worth a warning.
func TestKeyThatExpiresSoon(t *testing.T) {
	t.Parallel()
	id, err := identity.NewFor(time.Now(), 24*time.Hour)
	must(t, err)
	file := filepath.Join(t.TempDir(), "short.key")
	must(t, id.WriteFile(file))
	_, log, _ := watched(t, file, time.Hour)
	waitLine(t, log, map[string]string{"level": "warn", "msg": `identity's key expires: "culvert identity rotate" makes a new one before that, and nothing does after it`})
}

// All three processes take new keys while a stream lives; its channel's next
// path is made with them.
func TestNewKeysUnderAStream(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{inlet: func(c *config.Inlet) { c.Rekey = time.Second }})
	nc := sys.dial(t)
	wantEcho(t, nc, "before")
	for _, b := range []*base{sys.relay.base, sys.outlet.base, sys.inlet.base} {
		_, err := identity.RotateFile(b.keys.path, time.Now(), identity.Validity)
		must(t, err)
		b.Reload()
	}
	peers := func() (inlet, outlet int) {
		for _, ch := range sys.outlet.channels.list() {
			inlet = ch.session.ch.Peer().History.Len()
		}
		l := sys.inlet.allLinks()[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		for h := range l.all {
			outlet = h.session.(*lasting).ch.Peer().History.Len()
		}
		return inlet, outlet
	}
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		wantEcho(t, nc, "meanwhile")
		if inlet, outlet := peers(); inlet == 2 && outlet == 2 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the channel goes on with old keys")
		}
	}
	for _, b := range []*base{sys.relay.base, sys.outlet.base} {
		if n := b.keys.memory.Len(); n == 0 {
			t.Errorf("%s remembers nobody", b.Identifier())
		}
	}
	sys.stopInlet()
}

// What was seen of a peer's identity is known after a restart where there is a
// folder for it, and forgotten where there is none.
func TestStateOutlivesARestart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state bool
	}{{"with state", true}, {"without", false}} {
		t.Run(tt.name, func(t *testing.T) {
			key, _ := newIdentity(t)
			served, servedID := newIdentity(t)
			old, err := os.ReadFile(served)
			must(t, err)
			_, err = identity.RotateFile(served, time.Now(), identity.Validity)
			must(t, err)
			common := config.Common{Identity: key}
			if tt.state {
				common.State = t.TempDir()
			}
			meet := func() error {
				o, _ := newObs(t, "inlet")
				k, err := newIdentityKeeper(&common, channel.LocalConfig{}, o)
				must(t, err)
				ctx, cancel := context.WithCancel(context.Background())
				var running sync.WaitGroup
				running.Go(func() { k.remember(ctx) })
				defer running.Wait()
				defer cancel()
				other, err := channel.NewLocal(readIdentity(t, served))
				must(t, err)
				return shake(t, k.local, other, servedID)
			}
			must(t, meet())
			overwrite(t, served, old)
			want := map[bool]error{true: identity.ErrRolledBack, false: nil}[tt.state]
			if err := meet(); !errors.Is(err, want) {
				t.Errorf("after a restart, and the peer's key before: %v, want %v", err, want)
			}
		})
	}
}

// shake has a call b.
func shake(t *testing.T, a, b *channel.Local, want identity.Identifier) error {
	t.Helper()
	near, far := net.Pipe()
	var answering sync.WaitGroup
	answering.Go(func() {
		in, err := channel.Respond(t.Context(), far, b, channel.PurposeHop, channel.Options{})
		if err == nil {
			_ = in.Accept().Close()
		}
	})
	defer answering.Wait()
	c, err := channel.Initiate(t.Context(), near, a, want, channel.PurposeHop, nil, channel.Options{})
	if err == nil {
		_ = c.Close()
	}
	return err
}

// A folder that cannot be used, or a file there that is damaged, and an identity
// file older than one that was used before keep a process from starting.
func TestStateThatCannotBeUsed(t *testing.T) {
	key, _ := newIdentity(t)
	damaged, mine := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(damaged, "histories"), []byte("x"), 0o600))
	m := identity.NewMemory(0)
	must(t, errors.Join(m.Accept(rotate(t, readIdentity(t, key)).History()), m.Sync(filepath.Join(mine, "histories"))))
	for _, tt := range []struct{ state, want string }{
		{filepath.Join(t.TempDir(), "no", "where"), "state: mkdir"},
		{key, "state: histories file"},
		{damaged, "restore it, or remove it"},
		{mine, "identity: identity " + readIdentity(t, key).Identifier().String() + ": history is older"},
	} {
		o, _ := newObs(t, "inlet")
		_, err := newIdentityKeeper(&config.Common{Identity: key, State: tt.state}, channel.LocalConfig{}, o)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

// A new machine needs no folder made by hand, nor does one that others can read come
// of it.
func TestStateIsMade(t *testing.T) {
	key, _ := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "state")
	o, log := newObs(t, "inlet")
	_, err := newIdentityKeeper(&config.Common{Identity: key, State: dir}, channel.LocalConfig{}, o)
	must(t, err)
	waitLine(t, log, map[string]string{"msg": "folder made", "state": dir})
	if fi, err := os.Stat(dir); err != nil || fi.Mode() != os.ModeDir|0o700 {
		t.Errorf("the folder is %v, %v", fi, err)
	}
}

// What cannot be written is said, counted, and written when it can be.
func TestStateIsWrittenWhenItCanBe(t *testing.T) {
	key, _ := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "state")
	must(t, os.Mkdir(dir, 0o700))
	o, log := newObs(t, "inlet")
	k, err := newIdentityKeeper(&config.Common{Identity: key, State: dir}, channel.LocalConfig{}, o)
	must(t, err)
	must(t, os.RemoveAll(dir))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { k.remember(ctx) })
	other, _ := newIdentity(t)
	must(t, k.memory.Accept(rotate(t, readIdentity(t, other)).History()))
	waitLine(t, log, map[string]string{"level": "error", "msg": "what is known of peers' identities cannot be kept, and is forgotten when this process ends, trying on"})
	if n := metric(t, o, "culvert_channel_state_failures_total"); n != 1 {
		t.Errorf("%v failures, want 1", n)
	}
	must(t, os.Mkdir(dir, 0o700))
	cancel()
	running.Wait()
	if _, err := os.Stat(filepath.Join(dir, "histories")); errors.Is(err, fs.ErrNotExist) {
		t.Error("the process ended without another try")
	}
}
