//go:build unix

package identity

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// Every mode: what lets others read or write, or the group write, is refused.
func TestReadFileModes(t *testing.T) {
	path := put(t, testIdentity(t, 1).MarshalPEM())
	for mode := os.FileMode(0o400); mode <= 0o777; mode++ {
		if mode&0o400 == 0 {
			continue
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(path)
		_, publicErr := ReadPublicFile(path)
		var want []string
		switch {
		case mode&0o006 != 0:
			want = []string{"others can read or write"}
		case mode&0o020 != 0:
			want = []string{"its group can write"}
		}
		if want == nil {
			if err != nil || publicErr != nil {
				t.Errorf("mode %o: %v, %v; want it accepted", mode, err, publicErr)
			}
			continue
		}
		want = append(want, "identity file "+path, fmt.Sprintf("mode is %04o", mode), "chmod 600 "+path)
		wantError(t, err, want...)
		wantError(t, publicErr, want...)
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

func TestReadFileDoesNotHangOnSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{fifo, os.DevNull, "/dev/zero"}
	if sock := filepath.Join(dir, "s"); len(sock) < 100 { // the longest name of a socket is about 104
		ln, err := net.Listen("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		paths = append(paths, sock)
	}
	for _, path := range paths {
		done := make(chan error, 1)
		go func() { _, err := ReadFile(path); done <- err }()
		select {
		case err := <-done:
			wantError(t, err, "identity file "+path)
			if !strings.HasSuffix(path, "/s") { // a socket cannot be opened at all
				wantError(t, err, "not a regular file")
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("ReadFile(%s) hangs", path)
		}
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
