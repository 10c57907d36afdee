package authority

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/credential"
)

// A backup that is made under way is whole, and is the store once it is restored.
func TestBackupAndRestore(t *testing.T) {
	f := start(t, Config{})
	f.enrol(identifier(1), credential.Attributes{"role": "api"})
	dir := t.TempDir()
	backup := filepath.Join(dir, "backup.db")
	write := func(w io.Writer) error { return f.Backup(t.Context(), w) }

	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				f.enrol(identifier(1000+i), nil)
			}
		}
	})
	for range 5 {
		if err := errors.Join(WriteBackup(backup, f.Identifier(), write), os.Remove(backup)); err != nil {
			t.Error(err)
		}
	}
	err := WriteBackup(backup, f.Identifier(), write)
	close(stop)
	busy.Wait()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteBackup(backup, f.Identifier(), write); err == nil {
		t.Error("a backup was overwritten")
	}
	if after, _ := os.ReadFile(backup); !bytes.Equal(before, after) {
		t.Error("the backup is another one now")
	}

	// Not while the authority runs, not another's, and nothing broken.
	_, err = Restore(f.path, backup, f.Identifier(), time.Now())
	if !errors.Is(err, ErrInUse) {
		t.Errorf("restoring into a store in use: %v", err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Restore(f.path, backup, identifier(5), time.Now())
	wantText(t, err, backup, "that of authority "+f.Identifier().String())
	for _, n := range []int{0, 5000, len(before) / 2} {
		cut := filepath.Join(dir, "cut.db")
		if err := os.WriteFile(cut, before[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(f.path, cut, f.Identifier(), time.Now()); !errors.Is(err, ErrDamaged) {
			t.Errorf("restoring %d bytes of %d: %v", n, len(before), err)
		}
	}
	_, err = Restore(f.path, filepath.Join(dir, "none"), f.Identifier(), time.Now())
	wantText(t, err, "no such file")

	// Into the place of a store that is no more, of a broken one, and of nothing.
	for _, spoil := range []func() error{
		func() error { return nil },
		func() error { return os.Truncate(f.path, 3000) },
		func() error { return os.Remove(f.path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		was, _ := os.ReadFile(f.path)
		kept, err := Restore(f.path, backup, f.Identifier(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(kept); kept != "" && !bytes.Equal(got, was) || (kept == "") != (was == nil) {
			t.Errorf("what was there is kept as %q with %d bytes of %d", kept, len(got), len(was))
		}
		f.open(Config{})
		if _, err := f.renew(identifier(1)); err != nil {
			t.Errorf("after restoring: %v", err)
		}
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A backup that cannot be written whole has no name.
func TestBackupThatFails(t *testing.T) {
	f := start(t, Config{})
	path := filepath.Join(t.TempDir(), "backup.db")
	errFull := errors.New("no space left")
	for _, write := range []func(io.Writer) error{
		func(w io.Writer) error { _, _ = w.Write([]byte("something")); return errFull },
		func(io.Writer) error { return nil },
		func(w io.Writer) error { _, err := w.Write(make([]byte, 32<<10)); return err },
	} {
		err := WriteBackup(path, f.Identifier(), write)
		wantText(t, err, path)
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) > 0 {
			t.Errorf("left behind after %v: %q", err, left)
		}
	}
}

// A backup that is slow holds nobody up, however much is stored meanwhile.
func TestSlowBackupHoldsNobodyUp(t *testing.T) {
	if !sparseMaps {
		t.Skip("a store maps what it has, and no more, on this system")
	}
	f := start(t, Config{})
	f.enrol(identifier(1), nil)
	begun, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- f.Backup(t.Context(), &stuckWriter{begun: begun, goOn: goOn}) }()
	<-begun
	before, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	grown := make(chan error, 1)
	go func() { // until the file is four times as long
		for {
			err := f.store.db.Update(func(tx *bolt.Tx) error {
				return tx.Bucket(bucketSubjects).Put([]byte("grow"+time.Now().String()), make([]byte, 64<<10))
			})
			info, err2 := os.Stat(f.path)
			if err = errors.Join(err, err2); err != nil || info.Size() > 4*before.Size() {
				grown <- err
				return
			}
		}
	}()
	select {
	case err := <-grown:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing can be stored while a backup is slow")
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A stuckWriter takes its first bytes when it is let.
type stuckWriter struct {
	once  sync.Once
	begun chan<- struct{}
	goOn  <-chan struct{}
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	w.once.Do(func() {
		close(w.begun)
		<-w.goOn
	})
	return len(b), nil
}
