package authority

import (
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/identity"
)

// checkFile reads a whole store and says what is wrong with it, before anything
// in it is used or changed: bbolt maps the file into memory, where a page that
// the file has no more ends the process.
func checkFile(path string, owner identity.Identifier) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Mode().Perm()&0o077 != 0 && modeBits:
		return fmt.Errorf("others than its owner may use it (mode %04o): run \"chmod 600 %s\"", info.Mode().Perm(), path)
	case info.Size() == 0:
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	db, err := openBolt(path, true)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		if has, wants := info.Size(), tx.Size(); has < wants {
			return fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, has, wants)
		}
		return checkTx(tx, owner)
	})
	return errors.Join(err, db.Close())
}

// checkTx checks the structure of the file, and then every record.
func checkTx(tx *bolt.Tx, owner identity.Identifier) error {
	var broken error
	for err := range tx.Check() { // to its end: it has a goroutine of its own
		if broken == nil {
			broken = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if broken != nil {
		return broken
	}
	if err := checkMeta(tx, owner); err != nil {
		return err
	}
	for _, b := range []struct {
		name  []byte
		key   int // length; 0: any
		check func(v []byte) error
	}{
		{bucketMembers, 32, func(v []byte) error { _, err := decodeMember(v); return err }},
		{bucketSubjects, 0, func([]byte) error { return nil }},
		{bucketTickets, 16, func(v []byte) error { _, err := decodeTicket(v); return err }},
		{bucketIdentifiers, 32, func(v []byte) error { _, err := decodeRevocation(v, false); return err }},
		{bucketSerials, 16, func(v []byte) error { _, err := decodeRevocation(v, true); return err }},
		{bucketDropped, 16, func(v []byte) error { _, err := decodeDropped(v); return err }},
		{bucketNumbers, 8, func(v []byte) error { _, err := readU64(v); return err }},
	} {
		err := tx.Bucket(b.name).ForEach(func(k, v []byte) error {
			if b.key != 0 && len(k) != b.key {
				return fmt.Errorf("%w: a key of %d bytes in %s, want %d", ErrDamaged, len(k), b.name, b.key)
			}
			if err := b.check(v); err != nil {
				return fmt.Errorf("%w: %s, key %x: %w", ErrDamaged, b.name, k, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
