package obs

import (
	"os"
	"syscall"
	"testing"
)

// Whatever the umask allows, others cannot connect.
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
	s, err := newTestObs(t).Listen(t.Context(), Endpoints{Admin: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := mode(path); got != 0o600 {
		t.Errorf("the socket has mode %04o, want 0600", got)
	}
}
