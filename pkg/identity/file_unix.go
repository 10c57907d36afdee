//go:build unix

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openRead opens path for reading. O_NONBLOCK lets the open of a FIFO return at
// once instead of waiting for a writer, and O_NOCTTY keeps a terminal from
// becoming this process's own; both mean nothing to a regular file.
func openRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}

// checkMode refuses a private file that anybody but its owner can read or
// write. Its group may read it: a Kubernetes fsGroup sets that.
func checkMode(mode fs.FileMode, path string) error {
	var who string
	switch {
	case mode&0o006 != 0:
		who = "others can read or write"
	case mode&0o020 != 0:
		who = "its group can write"
	default:
		return nil
	}
	return fmt.Errorf("its mode is %04o, so that %s it: run \"chmod 600 %s\", and make a new identity if somebody may have read it", mode.Perm(), who, path)
}

// chownLike gives f the owner and group of another file. To leave them as they
// are is always allowed.
func chownLike(f *os.File, like fs.FileInfo) error {
	want, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// readOnly reports whether err says that nothing can be written there, whoever
// writes.
func readOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// syncFolder puts on disk which files a folder has.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
