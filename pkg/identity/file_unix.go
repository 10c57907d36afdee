//go:build unix

package identity

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

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
