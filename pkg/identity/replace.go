package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/secretfile"
)

// ErrRotating says that another process is rotating the same identity file.
var ErrRotating = errors.New("another rotation of it is under way")

// RotateFile gives the identity in the private file at path a new key, which
// holds from now on for validity ([MinValidity] to [Validity]), and puts it in
// the place of the one before, which is gone then. The file is replaced as a
// whole: whatever happens, the old one or the new one is there. Its mode, owner
// and group stay, and of a symbolic link what it leads to is replaced.
//
// It refuses a file that Kubernetes has put there, since Kubernetes would bring
// the old one back, and one that another RotateFile is at work on
// ([ErrRotating]).
func RotateFile(path string, now time.Time, validity time.Duration) (*Identity, error) {
	id, err := rotation{path: path, now: now, validity: validity}.run()
	if err != nil {
		return nil, fmt.Errorf("rotating identity file %s: %w", path, err)
	}
	return id, nil
}

// A rotation is one call of RotateFile. Reached, if not nil, is told of each
// step that was done.
type rotation struct {
	path     string
	now      time.Time
	validity time.Duration
	reached  func(step)
}

// The steps of the replacing of a file.
type step int

const (
	stepLocked  step = iota // and nothing done
	stepCreated             // the new file, empty
	stepWritten             // its content, on disk
	stepRenamed
	stepSynced // the folder
)

func (r rotation) run() (*Identity, error) {
	target, err := filepath.EvalSymlinks(r.path)
	if err != nil {
		return nil, explain(err)
	}
	if managed(target) {
		return nil, errors.New("it is in a volume that Kubernetes keeps: rotate the file that the Secret was made from, and update the Secret")
	}
	f, info, err := lockFile(target)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // and with it the lock
	key, h, err := readOpened(f, info, r.path)
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, errPublic
	}
	next, err := hold(key, h).RotateFor(r.now, r.validity)
	if err != nil {
		return nil, err
	}
	if !canLock {
		_ = f.Close() // where there are no locks, what is open is not replaced either
	}
	data := next.MarshalPEM()
	defer clear(data)
	r.tell(stepLocked)
	w := replacing{target: target, mode: info.Mode().Perm(), like: info, reached: r.reached}
	if err := w.run(data); err != nil {
		return nil, err
	}
	return next, nil
}

func (r rotation) tell(s step) {
	if r.reached != nil {
		r.reached(s)
	}
}

// managed reports whether a file, all links followed, is in a volume that
// Kubernetes keeps: a Secret's, say. There it is in a folder like
// ..2026_01_02_03_04_05.678, and the link to that is exchanged.
func managed(target string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(target), "/") {
		if strings.HasPrefix(part, "..") && len(part) > 2 {
			return true
		}
	}
	return false
}

// lockFile opens and locks the file at path. Who has waited for a lock may hold
// that of a file that is not there any more: then it is the next one's.
func lockFile(path string) (*os.File, fs.FileInfo, error) {
	for {
		f, info, err := secretfile.Open(path)
		if err != nil {
			return nil, nil, explain(err)
		}
		locked, err := tryLock(f)
		var there fs.FileInfo
		if err == nil {
			there, err = os.Stat(path)
		}
		switch {
		case err == nil && locked && os.SameFile(info, there):
			return f, info, nil
		case err == nil && !locked:
			err = fmt.Errorf("%w: wait for it", ErrRotating)
		}
		_ = f.Close()
		if err != nil {
			return nil, nil, explain(err)
		}
	}
}

// ReplaceFile writes the public identity file to path, as [History.WriteFile]
// does, or puts it in the place of one there, whose mode, owner and group stay.
// It refuses one that h is not the continuation of.
func (h *History) ReplaceFile(path string) error {
	if err := h.CheckReplace(path); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h.WriteFile(path)
	}
	if err == nil {
		err = h.replace(target)
	}
	if err != nil {
		return fmt.Errorf("writing identity file %s: %w", path, explain(err))
	}
	return nil
}

// replace puts the public file in the place of the one at target.
func (h *History) replace(target string) error {
	f, info, err := lockFile(target)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // and with it the lock
	if !canLock {
		_ = f.Close()
	}
	return replaceFile(target, h.MarshalPEM(), info.Mode().Perm(), info)
}

// CheckReplace says why [History.ReplaceFile] would not put h, or what will
// continue it, in the place of the file at path.
func (h *History) CheckReplace(path string) error {
	key, old, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err = os.Stat(filepath.Dir(path)); err == nil {
			return nil
		}
		err = errNoFolder
	case err == nil && key != nil:
		err = errors.New("it holds a private key: name a public file")
	case err == nil:
		err = h.Succeed(old)
	}
	if err != nil {
		return fmt.Errorf("writing identity file %s: %w", path, err)
	}
	return nil
}

// replaceFile puts a file with that content and mode in the place of the one at
// path, or where none is. Like, if not nil, is whose owner and group it gets.
func replaceFile(path string, data []byte, mode fs.FileMode, like fs.FileInfo) error {
	return replacing{target: path, mode: mode, like: like}.run(data)
}

// A replacing is one call of replaceFile.
type replacing struct {
	target  string
	mode    fs.FileMode
	like    fs.FileInfo
	reached func(step)
}

// run writes the new file beside the old one, whose name it gets when it is on
// disk. The name beside is always the same, so that what a killed process leaves
// there, which may be a key, is no more than one file, and gone with the next
// one.
func (r replacing) run(data []byte) error {
	beside := filepath.Join(filepath.Dir(r.target), "."+filepath.Base(r.target)+".new")
	if canLock {
		// Whoever writes it holds the lock that this process holds.
		if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explainReplace(err)
		}
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w, or was interrupted: then remove %s", ErrRotating, beside)
	}
	if err != nil {
		return explainReplace(err)
	}
	r.tell(stepCreated)
	err = r.dress(f)
	if err == nil {
		err = fill(f, data)
	} else {
		_ = f.Close()
	}
	if err != nil {
		return errors.Join(explainReplace(err), os.Remove(beside))
	}
	r.tell(stepWritten)
	if err := os.Rename(beside, r.target); err != nil {
		return errors.Join(explainReplace(err), os.Remove(beside))
	}
	r.tell(stepRenamed)
	if err := syncFolder(filepath.Dir(r.target)); err != nil {
		return fmt.Errorf("it was replaced, but may come back if this machine stops now: %w", err)
	}
	r.tell(stepSynced)
	return nil
}

// dress gives f its owner, group and mode, while there is nothing in it.
func (r replacing) dress(f *os.File) error {
	if r.like != nil {
		if err := chownLike(f, r.like); err != nil {
			return fmt.Errorf("giving the new file the old one's owner and group: %w", err)
		}
	}
	return f.Chmod(r.mode)
}

func (r replacing) tell(s step) {
	if r.reached != nil {
		r.reached(s)
	}
}

// explainReplace says what to do where a file cannot be replaced.
func explainReplace(err error) error {
	if readOnly(err) {
		return fmt.Errorf("its folder cannot be written: %w: if it is a mounted Secret, rotate the file that the Secret was made from, and update the Secret", plain(err))
	}
	return explain(err)
}

// plain takes the path out, which the caller's text has.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
