//go:build unix

package secretfile

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A mounted Secret of Kubernetes is a link to a link; its own mode 0777 says nothing, that
// of the file does.
func TestOpenFollowsLinks(t *testing.T) {
	path := put(t, "secret")
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data, link := filepath.Join(dir, "..data"), filepath.Join(dir, "secret")
	if err := errors.Join(os.Symlink(filepath.Dir(path), data), os.Symlink(filepath.Join("..data", "secret"), link)); err != nil {
		t.Fatal(err)
	}
	f, info, err := Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info.Mode() != 0o440 {
		t.Errorf("its mode is %v, want that of the file", info.Mode())
	}
	loop, nowhere := filepath.Join(dir, "loop"), filepath.Join(dir, "nowhere")
	if err := errors.Join(os.Symlink(loop, loop), os.Symlink("missing", nowhere)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, loop, syscall.ELOOP)
	wantRefused(t, nowhere, fs.ErrNotExist)
}

// Nothing that a name may lead to is waited for.
func TestOpenWaitsForNothing(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	paths := map[string]error{fifo: ErrNotRegular, os.DevNull: ErrNotRegular, "/dev/zero": ErrNotRegular}
	if socket := filepath.Join(dir, "s"); len(socket) < 100 { // the longest name of a socket is about 104
		ln, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		paths[socket] = nil // cannot be opened at all, and each system says so in its own way
	}
	for path, why := range paths {
		done := make(chan struct{})
		go func() {
			defer close(done)
			wantRefused(t, path, why)
		}()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("Open(%s) hangs", path)
		}
	}
}

// Every mode: what lets others read or write, or the group write, is refused.
func TestCheckMode(t *testing.T) {
	for mode := range fs.FileMode(0o1000) {
		for _, more := range []fs.FileMode{0, fs.ModeSetuid | fs.ModeSticky} {
			want := ""
			switch mode & 0o066 {
			case 0o000, 0o040:
			case 0o020, 0o060:
				want = "its group can write it"
			default:
				want = "others can read or write it"
			}
			err := CheckMode(mode | more)
			switch {
			case want == "" && err != nil:
				t.Errorf("%04o: %v, want it accepted", mode, err)
			case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("its mode is %04o, so that ", mode))):
				t.Errorf("%04o: %v, want that %s", mode, err, want)
			}
		}
	}
}
