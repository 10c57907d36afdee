//go:build unix

package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFileModes(t *testing.T) {
	id := testIdentity(t, 1)
	dir := t.TempDir()
	private, public := filepath.Join(dir, "a.key"), filepath.Join(dir, "a.pub")
	if err := id.WriteFile(private); err != nil {
		t.Fatal(err)
	}
	if err := id.History().WriteFile(public); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(private)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("private file has mode %v, %v; want 0600", info.Mode(), err)
	}
	if info, err = os.Stat(public); err != nil || info.Mode().Perm()&0o600 != 0o600 || info.Mode().Perm()&^0o644 != 0 {
		t.Errorf("public file has mode %v, %v; want 0644 less the umask", info.Mode(), err)
	}
}

// A private file that others can use is refused, whichever way it is read, and the error
// says what to do.
func TestReadFileModes(t *testing.T) {
	path := put(t, testIdentity(t, 1).MarshalPEM())
	for mode, want := range map[os.FileMode]string{
		0o400: "", 0o600: "", 0o640: "", 0o750: "",
		0o602: "others can read or write", 0o604: "others can read or write", 0o664: "others can read or write", 0o620: "its group can write",
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(path)
		_, publicErr := ReadPublicFile(path)
		if want == "" {
			if err != nil || publicErr != nil {
				t.Errorf("mode %o: %v, %v; want it accepted", mode, err, publicErr)
			}
			continue
		}
		text := fmt.Sprintf("identity file %s: its mode is %04o, so that %s it: run \"chmod 600 %s\", and make a new identity if somebody may have read it", path, mode, want, path)
		for _, err := range []error{err, publicErr} {
			if err == nil || err.Error() != text {
				t.Errorf("mode %o: %v, want %s", mode, err, text)
			}
		}
	}
}

func TestPublicFileMayBeReadByAll(t *testing.T) {
	path := put(t, testIdentity(t, 1).History().MarshalPEM())
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPublicFile(path); err != nil {
		t.Error(err)
	}
}

// A Kubernetes Secret is a link to a link; its own mode 0777 says nothing, that
// of the file does.
func TestReadFileFollowsLinks(t *testing.T) {
	id := testIdentity(t, 1)
	path := put(t, id.MarshalPEM())
	dir := t.TempDir()
	data, link := filepath.Join(dir, "..data"), filepath.Join(dir, "relay.key")
	if err := os.Symlink(filepath.Dir(path), data); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..data", "relay.key"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(link); err != nil || got.Identifier() != id.Identifier() {
		t.Errorf("ReadFile = %v, %v; want %v", got, err, id)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := ReadFile(link)
	wantError(t, err, "others can read or write")

	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	_, err = ReadFile(loop)
	wantError(t, err, "identity file "+loop)
}

// WriteFile must not write through a link that somebody put at its name, even
// one that leads nowhere yet.
func TestWriteFileRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	wantError(t, testIdentity(t, 1).WriteFile(link), "never overwritten")
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		t.Errorf("the link's target: %v, want none", err)
	}
}

// A disk that is full leaves no part of a file behind.
func TestWriteFileRemovesPartOfAFile(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "relay.key")
	limit := old
	limit.Cur = 100 // bytes: less than any identity file has
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	err := testIdentity(t, 1).WriteFile(path)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	wantError(t, err, "writing identity file "+path)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after a failed write: %v, want no file", err)
	}
}
