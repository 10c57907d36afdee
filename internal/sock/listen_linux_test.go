package sock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// socketPath returns a path that is short enough.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// Whatever the umask says, who may connect is what the mode says: once it listens,
// and, if that is less, in the moment before.
func TestListenUnixMode(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
			func() {
				defer syscall.Umask(syscall.Umask(umask))
				early := socketPath(t)
				lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setMode(c, mode) }}
				ln, err := lc.Listen(t.Context(), "unix", early)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				if got, want := modeOf(t, early).Perm(), mode&^fs.FileMode(umask); got != want {
					t.Errorf("umask %04o: as it is made the socket has mode %04o, want %04o", umask, got, want)
				}
			}()
			func() {
				defer syscall.Umask(syscall.Umask(umask &^ 0o300)) // the folder has to be entered
				path := socketPath(t)
				ln, err := ListenUnix(t.Context(), path, mode)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				if got := modeOf(t, path).Perm(); got != mode {
					t.Errorf("umask %04o: the socket has mode %04o, want %04o", umask, got, mode)
				}
			}()
		}
	}
}

// A dead process's socket is replaced, and nothing else.
func TestListenUnixInTheWay(t *testing.T) {
	t.Run("dead process", func(t *testing.T) {
		path := socketPath(t)
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		ln, err := ListenUnix(t.Context(), path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close the socket is there still: %v", err)
		}
	})
	t.Run("living process", func(t *testing.T) {
		path := socketPath(t)
		ln, err := ListenUnix(t.Context(), path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if _, err := ListenUnix(t.Context(), path, 0o600); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another process") {
			t.Errorf("got %v, want the word that another process listens", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the first one was harmed: %v", err)
		} else {
			c.Close()
		}
	})
	for name, put := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"folder":  func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink": func(path string) error { return os.Symlink("elsewhere", path) },
		"fifo":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before := modeOf(t, path)
			if _, err := ListenUnix(t.Context(), path, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want the path and that it is no socket", err)
			}
			if got := modeOf(t, path); got != before {
				t.Errorf("it was %v and is %v", before, got)
			}
		})
	}
}

// What another process has put in the socket's place meanwhile stays.
func TestListenUnixRemovesItsOwn(t *testing.T) {
	path := socketPath(t)
	first, err := ListenUnix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := ListenUnix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second one's socket is gone: %v", err)
	} else {
		c.Close()
	}
}

// Another mode is that of the socket that was made, and of nothing that has taken its
// place.
func TestSetMode(t *testing.T) {
	path := socketPath(t)
	ln, err := ListenUnix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, mode := range []fs.FileMode{0o660, 0o600, 0o666} {
		if err := SetMode(ln, mode|fs.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		if got := modeOf(t, path); got != mode|fs.ModeSocket {
			t.Errorf("the socket is %v, want mode %04o", got, mode)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := SetMode(ln, 0o660); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the socket: %v", err)
	}
	other := filepath.Join(t.TempDir(), "secret")
	for name, put := range map[string]func() error{
		"a file": func() error { return os.WriteFile(path, nil, 0o600) },
		"a link": func() error { return errors.Join(os.WriteFile(other, nil, 0o600), os.Symlink(other, path)) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if err := SetMode(ln, 0o666); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s in its place: %v, want an error that names it", name, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s was changed: %v, %v", name, info, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if err := SetMode(tcp, 0o660); err == nil || !strings.Contains(err.Error(), "no unix socket") {
		t.Errorf("a TCP listener: %v", err)
	}
}
