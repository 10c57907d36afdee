package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/identity"
)

// Backup writes the store as it is at one moment, while the authority goes on.
// The store can be restored from what is written when the error is nil, and not
// before.
func (a *Authority) Backup(_ context.Context, w io.Writer) error {
	err := a.store.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
	if err != nil {
		return fmt.Errorf("backing up the store: %w", err)
	}
	return nil
}

// WriteBackup makes a backup file of what write writes, and reads all of it
// before it gets its name, which nothing must have.
func WriteBackup(path string, owner identity.Identifier, write func(io.Writer) error) error {
	if err := writeWhole(path, owner, write, publishFile); err != nil {
		return storeError("writing backup", path, err)
	}
	return nil
}

// Restore makes a backup the store, which must not be in use. What is in its
// place is kept beside it, under the name that is returned; "" if there was
// nothing. A backup that is broken, or another authority's, changes nothing.
//
// What was enrolled and revoked since the backup was made is lost: members that
// know of such a revocation take no list without it, so that it has to be made
// again.
func Restore(path, backup string, owner identity.Identifier, now time.Time) (kept string, err error) {
	in, err := os.Open(backup)
	if err != nil {
		return "", storeError("restoring", path, err)
	}
	defer in.Close()
	copyAll := func(w io.Writer) error { _, err := io.Copy(w, in); return err }
	release, err := lockForRestore(path)
	if err != nil {
		return "", storeError("restoring", path, err)
	}
	err = writeWhole(path, owner, copyAll, func(temp, path string) error {
		kept, err = replaceFile(temp, path, now)
		return err
	})
	if err = errors.Join(err, release()); err != nil {
		return "", storeError("restoring", path, fmt.Errorf("from %s: %w", backup, err))
	}
	return kept, nil
}

// lockForRestore keeps authorities from the store that is to be replaced. A file
// that is no store any more nobody uses.
func lockForRestore(path string) (release func() error, err error) {
	db, err := openBolt(path, true)
	switch {
	case err == nil:
		return db.Close, nil
	case errors.Is(err, ErrDamaged), errors.Is(err, fs.ErrNotExist):
		return func() error { return nil }, nil
	}
	return nil, err
}

// replaceFile puts a finished file in another's place, and keeps that one.
func replaceFile(temp, path string, now time.Time) (kept string, err error) {
	if _, err := os.Lstat(path); err == nil {
		kept = fmt.Sprintf("%s.before-%s", path, now.UTC().Format("20060102T150405.000Z"))
		if err := os.Link(path, kept); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, path); err != nil {
		return "", err
	}
	return kept, syncDir(filepath.Dir(path))
}

// writeWhole has a file written beside path, checks all of it, and has it get
// its name; on an error nothing is left of it.
func writeWhole(path string, owner identity.Identifier, write func(io.Writer) error, publish func(temp, path string) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // it has its name, or is of no use
	if err := errors.Join(write(temp), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := checkFile(temp.Name(), owner); err != nil {
		return err
	}
	return publish(temp.Name(), path)
}
