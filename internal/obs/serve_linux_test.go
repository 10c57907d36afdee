package obs

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// Whatever the umask allows, others cannot connect: not once it listens, and
// not in the moment before its mode is set.
func TestUnixSocketIsItsOwners(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	path := socketPath(t)
	lc := net.ListenConfig{Control: private}
	ln, err := lc.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if got := mode(path); got != 0o600 {
		t.Errorf("as it is made the socket has mode %04o, want 0600", got)
	}
	ln.Close()
	path = socketPath(t)
	s, err := newTestObs(t).Listen(t.Context(), Endpoints{Admin: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := mode(path); got != 0o600 {
		t.Errorf("the socket has mode %04o, want 0600", got)
	}
}
