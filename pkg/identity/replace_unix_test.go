//go:build unix && !aix && !solaris

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// newFile writes a new identity to a folder of its own.
func newFile(t testing.TB) (*Identity, string) {
	t.Helper()
	id, err := New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "relay.key")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return id, path
}

// wantOnly fails unless the file's folder holds nothing else.
func wantOnly(t testing.TB, path string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 {
		t.Errorf("%s has %v beside it, %v", path, list, err)
	}
}

func TestRotateFile(t *testing.T) {
	id, path := newFile(t)
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o400, 0o440} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		next, err := RotateFile(path, time.Now(), 48*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if err != nil || got.History().LastHash() != next.History().LastHash() || !got.key().Equal(next.key()) {
			t.Fatalf("the file holds %v, %v; want %v", got, err, next)
		}
		if err := got.History().Succeed(id.History()); err != nil || got.History().Len() != id.History().Len()+1 {
			t.Errorf("%d changes after %d: %v", got.History().Len(), id.History().Len(), err)
		}
		if until := got.History().Expires(); time.Until(until) < 47*time.Hour || time.Until(until) > 48*time.Hour {
			t.Errorf("expires at %s, want in 48 h", until)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		wantOnly(t, path)
		id = got
	}
}

// The group stays, and so does the owner, where the process may give it away.
func TestRotateFileKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	_, path := newFile(t)
	if err := os.Chown(path, 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateFile(path, time.Now(), Validity); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 2345 {
		t.Errorf("owner %d and group %d, want 1234 and 2345", st.Uid, st.Gid)
	}
}

// A link stays a link; what it leads to is replaced.
func TestRotateFileFollowsLinks(t *testing.T) {
	_, target := newFile(t)
	link := filepath.Join(t.TempDir(), "link.key")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateFile(link, time.Now(), Validity); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != target {
		t.Errorf("the link leads to %s, %v", to, err)
	}
	if got, err := ReadFile(target); err != nil || got.History().Len() != 2 {
		t.Errorf("the target holds %v, %v", got, err)
	}
	wantOnly(t, target)
	wantOnly(t, link)
}

// What cannot be rotated says why, and stays as it was.
func TestRotateFileRefuses(t *testing.T) {
	put := func(id *Identity, mode fs.FileMode) string {
		path := filepath.Join(t.TempDir(), "relay.key")
		if err := errors.Join(id.WriteFile(path), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	public := filepath.Join(t.TempDir(), "relay.pub")
	if err := testIdentity(t, 1).History().WriteFile(public); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	data := filepath.Join(secret, "..2026_01_02")
	if err := errors.Join(os.MkdirAll(data, 0o700), testIdentity(t, 1).WriteFile(filepath.Join(data, "relay.key")),
		os.Symlink("..2026_01_02", filepath.Join(secret, "..data")), os.Symlink("..data/relay.key", filepath.Join(secret, "relay.key"))); err != nil {
		t.Fatal(err)
	}
	rotating := put(testIdentity(t, 1), 0o600)
	f, _, err := lockFile(rotating)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		name, path string
		now        time.Time
		validity   time.Duration
		want       []string
	}{
		{"missing", filepath.Join(t.TempDir(), "missing.key"), epoch, Validity, []string{"no such file", "culvert identity new"}},
		{"public", public, epoch, Validity, []string{"it is public and holds no private key"}},
		{"full", put(testIdentity(t, MaxChanges), 0o600), epoch.Add(32 * time.Hour), Validity, []string{"full with 32 changes", "make a new identity"}},
		{"expired", put(testIdentity(t, 1), 0o600), epoch.Add(Validity), Validity, []string{"expired"}},
		{"the clock is behind", put(testIdentity(t, 2), 0o600), epoch, Validity, []string{"not valid yet", "check the clocks"}},
		{"for no time", put(testIdentity(t, 1), 0o600), epoch, 0, []string{"a key holds for 1m0s to 87600h0m0s, not for 0s"}},
		{"for too long", put(testIdentity(t, 1), 0o600), epoch, Validity + 1, []string{"a key holds for"}},
		{"others can read it", put(testIdentity(t, 1), 0o604), epoch, Validity, []string{"mode is 0604", "chmod 600"}},
		{"its group can write it", put(testIdentity(t, 1), 0o620), epoch, Validity, []string{"its group can write it"}},
		{"in a Secret", filepath.Join(secret, "relay.key"), epoch, Validity, []string{"Kubernetes", "update the Secret"}},
		{"by another process", rotating, epoch, Validity, []string{"another rotation of it is under way: wait for it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, _ := os.ReadFile(tt.path)
			_, err := RotateFile(tt.path, tt.now, tt.validity)
			wantError(t, err, append(tt.want, "rotating identity file "+tt.path+": ")...)
			if after, _ := os.ReadFile(tt.path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
	err = explainReplace(&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS})
	wantError(t, err, "read-only file system", "if it is a mounted Secret", "update the Secret")
}

// Whoever rotates at the same time: each that succeeds adds one change, and the
// others say that they could not.
func TestRotateFileAtOnce(t *testing.T) {
	_, path := newFile(t)
	const tries, most = 40, MaxChanges
	var rotating sync.WaitGroup
	ok := make(chan bool, tries)
	for range 4 {
		rotating.Go(func() {
			for range tries / 4 {
				_, err := RotateFile(path, time.Now(), Validity)
				if err != nil && !errors.Is(err, ErrRotating) && !strings.Contains(err.Error(), "full with") {
					t.Errorf("RotateFile: %v", err)
				}
				ok <- err == nil
			}
		})
	}
	rotating.Wait()
	close(ok)
	n := 1
	for done := range ok {
		if done {
			n++
		}
	}
	id, err := ReadFile(path)
	if err != nil || id.History().Len() != n || n < 2 || n > most {
		t.Errorf("%v with %v, after %d rotations", id, err, n-1)
	}
	wantOnly(t, path)
}

// A process that is killed at any step leaves the old file or the new one, and
// the next rotation clears up behind it.
func TestKilledRotation(t *testing.T) {
	const variable = "CULVERT_TEST_ROTATE"
	if path, at, child := strings.Cut(os.Getenv(variable), "@"); child {
		_, _ = rotation{path: path, now: time.Now(), validity: Validity, reached: func(s step) {
			if strconv.Itoa(int(s)) == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}}.run()
		t.Fatalf("still there after step %s", at)
	}
	for at := stepLocked; at <= stepSynced; at++ {
		t.Run(fmt.Sprint("step ", at), func(t *testing.T) {
			id, path := newFile(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledRotation$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s@%d", variable, path, at))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			want := 1
			if at >= stepRenamed {
				want = 2
			}
			got, err := ReadFile(path)
			if err != nil || got.History().Len() != want || !got.History().Extends(id.History()) {
				t.Errorf("the file holds %v, %v; want %d changes", got, err, want)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if next, err := RotateFile(path, time.Now(), Validity); err != nil || next.History().Len() != want+1 {
				t.Errorf("the next rotation: %v, %v", next, err)
			}
			wantOnly(t, path)
		})
	}
}

func TestReplacePublicFile(t *testing.T) {
	two := testIdentity(t, 2)
	three, err := two.rotateTo(testKey(9), epoch.Add(2*time.Hour), Validity)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "relay.pub")
	if err := two.History().ReplaceFile(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o604), three.History().ReplaceFile(path), three.History().ReplaceFile(path)); err != nil {
		t.Fatal(err)
	}
	if h, err := ReadPublicFile(path); err != nil || h.LastHash() != three.History().LastHash() {
		t.Errorf("the file holds %v, %v", h, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o604 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	private := filepath.Join(t.TempDir(), "relay.key")
	if err := two.WriteFile(private); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		h    *History
		path string
		want string
	}{
		{two.History(), path, "older than one seen before"},
		{testIdentityFrom(t, 50, 1), path, "cannot take the place of another one"},
		{three.History(), private, "it holds a private key"},
		{three.History(), t.TempDir(), "not a regular file"},
	} {
		before, _ := os.ReadFile(tt.path)
		wantError(t, tt.h.ReplaceFile(tt.path), "writing identity file "+tt.path+": ", tt.want)
		if after, _ := os.ReadFile(tt.path); !bytes.Equal(before, after) {
			t.Error("the file was changed")
		}
	}
	wantOnly(t, path)
}
