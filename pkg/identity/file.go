package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/culvert-net/culvert/internal/secretfile"
)

// maxFileLen bounds what is read from a file, in bytes. A private file with the
// longest history has about 11 KiB.
const maxFileLen = 64 << 10

// ReadFile reads the private identity file at path. It refuses a file that
// others can read or write, apart from reading by its group, which a Kubernetes
// fsGroup sets; symbolic links are followed and what they lead to is checked.
// (Outside of Unix, mode bits say nothing and are not looked at.) Errors name
// the file and what to do, and hold nothing of the key.
func ReadFile(path string) (*Identity, error) {
	key, h, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity file %s: %w", path, err)
	}
	if key == nil {
		return nil, fmt.Errorf("identity file %s: %w", path, errPublic)
	}
	return hold(key, h), nil
}

var errPublic = errors.New("it is public and holds no private key: name the private file that it was made from")

// ReadPublicFile reads the history in the private or public identity file at
// path. A file with a private key is held to what [ReadFile] demands.
func ReadPublicFile(path string) (*History, error) {
	_, h, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity file %s: %w", path, err)
	}
	return h, nil
}

// readFile reads the file at path; the key is nil if it is a public one.
func readFile(path string) (ed25519.PrivateKey, *History, error) {
	f, info, err := secretfile.Open(path)
	if err != nil {
		return nil, nil, explain(err)
	}
	defer func() { _ = f.Close() }() // only read from: nothing is lost
	return readOpened(f, info, path)
}

// readOpened is readFile for a file that was opened at path.
func readOpened(f *os.File, info fs.FileInfo, path string) (ed25519.PrivateKey, *History, error) {
	data, err := secretfile.Read(f, maxFileLen)
	if err != nil {
		return nil, nil, explain(err)
	}
	defer clear(data) // it may hold the private key
	key, h, err := parsePEM(data)
	if err != nil {
		return nil, nil, err
	}
	if key != nil {
		if err := secretfile.CheckMode(info.Mode()); err != nil {
			return nil, nil, fmt.Errorf("%w: run \"chmod 600 %s\", and make a new identity if somebody may have read it", err, path)
		}
	}
	return key, h, nil
}

// WriteFile writes the private identity file to path, which only its owner can
// read (mode 0600), and puts it on disk. It fails if path exists, whatever is
// there, and leaves nothing behind when it fails.
func (id *Identity) WriteFile(path string) error {
	data := id.MarshalPEM()
	defer clear(data)
	return writeFile(path, data, 0o600)
}

// WriteFile writes the public identity file to path, which everybody may read
// (mode 0644 less the umask). It fails if path exists, and leaves nothing
// behind when it fails.
func (h *History) WriteFile(path string) error {
	return writeFile(path, h.MarshalPEM(), 0o644)
}

var errNoFolder = fmt.Errorf("its folder is not there: make it first, or check the name: %w", fs.ErrNotExist)

func writeFile(path string, data []byte, mode fs.FileMode) error {
	// O_EXCL: never over a key that may be the only copy, never through a link.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("writing identity file %s: %w", path, errNoFolder)
		}
		return fmt.Errorf("writing identity file %s: %w", path, explain(err))
	}
	if err := fill(f, data); err != nil {
		return fmt.Errorf("writing identity file %s: %w", path, errors.Join(explain(err), os.Remove(path)))
	}
	return nil
}

// A sink is what fill needs of an *os.File.
type sink interface {
	io.WriteCloser
	Sync() error
}

// fill writes data to f, puts it on disk and closes f in any case.
func fill(f sink, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// explain says what to do about an error of the file system. It takes the path
// out, which the caller's text has.
func explain(err error) error {
	err = plain(err)
	switch {
	case errors.Is(err, secretfile.ErrNotRegular):
		return errors.New("it is not a regular file: name a file that \"culvert identity new\" wrote")
	case errors.Is(err, secretfile.ErrTooLong):
		return fmt.Errorf("it is longer than %d bytes: name one that \"culvert identity new\" wrote", maxFileLen)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: check the name, or make one with \"culvert identity new -o FILE\"", err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w and is never overwritten: choose another name or move it away", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run as the file's owner or change its owner or folder", err)
	}
	return err
}
