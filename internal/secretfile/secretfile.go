// Package secretfile owns how a file that holds a secret is opened, judged and read.
// What the secret is, and what to do about a file that is refused, is for its callers to
// say; it writes nothing.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

var (
	// ErrNotRegular is about what is no regular file: a folder, a device, a FIFO.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLong is about a file that has more bytes than its reader takes.
	ErrTooLong = errors.New("too long")
)

// Open opens the regular file at path for reading, and says what it has opened: the name
// may lead elsewhere by now. Symbolic links are followed, which a mounted Secret of
// Kubernetes is made of. It waits for nothing: not for a FIFO's writer, nor for a
// terminal. An error is an [*fs.PathError]; it wraps [ErrNotRegular] for what can be
// opened and is no regular file. The caller closes the file.
func Open(path string) (*os.File, fs.FileInfo, error) {
	f, err := open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		_ = f.Close() // only opened: nothing is lost
		return nil, nil, err
	}
	return f, info, nil
}

// CheckMode says who else can use a file of that mode, if anybody but its owner can write
// it, or anybody but its owner and its group can read it: a Kubernetes fsGroup lets the
// group read, and so do systemd's credentials. Outside of Unix the bits of a mode are made
// up, and every one will do: there an access list guards the file.
func CheckMode(mode fs.FileMode) error {
	var who string
	switch {
	case !modeBits:
		return nil
	case mode&0o006 != 0:
		who = "others can read or write"
	case mode&0o020 != 0:
		who = "its group can write"
	default:
		return nil
	}
	return fmt.Errorf("its mode is %04o, so that %s it", mode.Perm(), who)
}

// Read reads all of r, at most so many bytes, into one buffer that never moves, so that
// the caller can clear it. The error is [ErrTooLong] where there is more. With an error
// comes nothing, and what was read is cleared.
func Read(r io.Reader, most int) ([]byte, error) {
	buf := make([]byte, most+1)
	n, err := io.ReadFull(r, buf)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return buf[:n], nil
	case err == nil:
		err = ErrTooLong
	}
	clear(buf)
	return nil, err
}
