package authority

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/credential"
)

// What was done is there after a restart, and numbers of lists go on.
func TestRestart(t *testing.T) {
	f := start(t, Config{})
	f.enrol(identifier(1), credential.Attributes{"role": "api"})
	f.revokeID(identifier(2))
	ticket := f.ticket(TicketRequest{Uses: 2})
	number, _ := f.Number()
	f.restart(Config{})

	next, entries := f.Number()
	if next <= number || entries != 1 {
		t.Errorf("list %d with %d entries after %d, want a higher number and 1", next, entries, number)
	}
	members, err := f.Members(t.Context(), identifier(0), 10)
	if err != nil || len(members) != 1 || members[0].Identifier != identifier(1) || members[0].Attributes["role"] != "api" {
		t.Errorf("members %+v, %v", members, err)
	}
	if _, err := f.renew(identifier(1)); err != nil {
		t.Errorf("renewing after a restart: %v", err)
	}
	if _, err := f.enrollTicket(identifier(3), credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}); err != nil {
		t.Errorf("a ticket from before a restart: %v", err)
	}
	_, err = f.enrollTicket(identifier(2), credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret})
	wantRefusal(t, err, 106, "revoked the identifier")
}

// A store that was cut anywhere is refused, or has everything; it is never half.
func TestStoreCutAnywhere(t *testing.T) {
	f := start(t, Config{})
	for i := range 40 {
		f.enrol(identifier(i+1), credential.Attributes{"role": "api"})
	}
	f.revokeID(identifier(100), identifier(101))
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	step := 509
	if testing.Short() {
		step = 4099
	}
	cuts := []int{0, 1, 16, 100, 4095, 4096, 4097, 8191, 8192, 8193, len(whole) - 1, len(whole)}
	for n := 0; n < len(whole); n += step {
		cuts = append(cuts, n)
	}
	path := filepath.Join(t.TempDir(), "cut.db")
	works := 0
	for _, n := range cuts {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(path, f.id.Identifier())
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("cut at %d of %d: %v, want ErrDamaged", n, len(whole), err)
			}
			wantText(t, err, path, "restore a backup")
			if got, _ := os.ReadFile(path); len(got) != n {
				t.Errorf("cut at %d: the file has %d bytes now", n, len(got))
			}
			continue
		}
		works++
		members := 0
		_ = s.db.View(func(tx *bolt.Tx) error { members = tx.Bucket(bucketMembers).Stats().KeyN; return nil })
		if set, err := s.loadSet(); err != nil || set.Len() != 2 || members != 40 {
			t.Errorf("cut at %d of %d: opened with %d members, %v: want all or nothing", n, len(whole), members, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if works == 0 || works == len(cuts) {
		t.Errorf("%d of %d cuts work: the test cuts nothing that matters", works, len(cuts))
	}
}

func TestOpenStoreRefusals(t *testing.T) {
	f := start(t, Config{})
	owner := f.id.Identifier()
	_, err := OpenStore(f.path, owner)
	if !errors.Is(err, ErrInUse) {
		t.Errorf("a store that is in use: %v", err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(f.path, identifier(9))
	wantText(t, err, f.path, "that of authority "+owner.String(), identifier(9).String())

	if modeBits {
		if err := os.Chmod(f.path, 0o640); err != nil {
			t.Fatal(err)
		}
		_, err = OpenStore(f.path, owner)
		wantText(t, err, "mode 0640", "chmod 600")
		if err := os.Chmod(f.path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(change func(tx *bolt.Tx) error) {
		t.Helper()
		db, err := bolt.Open(f.path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keySchema, u64(2)) })
	_, err = OpenStore(f.path, owner)
	wantText(t, err, "version 2", "reads 1")
	edit(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keySchema, u64(1)) })
	edit(func(tx *bolt.Tx) error {
		id := identifier(3)
		return tx.Bucket(bucketMembers).Put(id[:], []byte("nonsense"))
	})
	if _, err = OpenStore(f.path, owner); !errors.Is(err, ErrDamaged) {
		t.Errorf("a record that is none: %v", err)
	}
	wantText(t, err, "members")
	edit(func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketMembers) })
	if _, err = OpenStore(f.path, owner); !errors.Is(err, ErrDamaged) {
		t.Errorf("without members: %v", err)
	}

	dir := t.TempDir()
	_, err = OpenStore(dir, owner)
	wantText(t, err, dir, "no regular file")
	_, err = OpenStore(filepath.Join(dir, "none", "a.db"), owner)
	wantText(t, err, "no such file")
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = OpenStore(text, owner); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of zeros: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
