//go:build unix

package secretfile

import (
	"os"
	"syscall"
)

// modeBits says that a file's mode says who may use it.
const modeBits = true

// open opens path for reading. O_NONBLOCK lets the open of a FIFO return at once instead
// of waiting for a writer, and O_NOCTTY keeps a terminal from becoming this process's own;
// both mean nothing to a regular file.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}
