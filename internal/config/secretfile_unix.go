//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openSecret opens a file for reading. A FIFO that nobody writes, or a terminal, is not
// waited for.
func openSecret(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}

// checkSecretMode refuses a file that anybody but its owner can read or write. Its group
// may read it: a Kubernetes fsGroup sets that, and systemd's credentials.
func checkSecretMode(mode fs.FileMode) error {
	var who string
	switch {
	case mode&0o006 != 0:
		who = "others can read or write"
	case mode&0o020 != 0:
		who = "its group can write"
	default:
		return nil
	}
	return fmt.Errorf("its mode is %04o, so that %s it: give it mode 0600, and take another secret if somebody may have read it", mode.Perm(), who)
}
