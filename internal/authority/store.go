package authority

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// schema is the version of what docs at the package say of the store.
const schema = 1

const (
	// lockPatience is how long opening waits for another process to let go.
	lockPatience = time.Second
	// batchDelay is how long a change waits for others to share its transaction.
	batchDelay = 2 * time.Millisecond
	// growBy is how much the file grows by at once, in bytes.
	growBy = 1 << 20
)

// Errors of [OpenStore] and [CreateStore].
var (
	// ErrInUse says that another process has the store open: the authority runs.
	ErrInUse = errors.New("another process has it open")
	// ErrDamaged says that the file is cut off or broken.
	ErrDamaged = errors.New("it is damaged: restore a backup")
)

// The buckets; never written.
var (
	bucketMeta        = []byte("meta")
	bucketMembers     = []byte("members")
	bucketSubjects    = []byte("subjects")
	bucketTickets     = []byte("tickets")
	bucketIdentifiers = []byte("identifiers")
	bucketSerials     = []byte("serials")
	bucketDropped     = []byte("dropped")
	bucketNumbers     = []byte("numbers")

	keySchema     = []byte("schema")
	keyIdentifier = []byte("identifier")
	keyNumber     = []byte("number")
)

func buckets() [][]byte {
	return [][]byte{
		bucketMeta, bucketMembers, bucketSubjects, bucketTickets,
		bucketIdentifiers, bucketSerials, bucketDropped, bucketNumbers,
	}
}

// A Store is an authority's file, open and locked for this process alone. It is
// safe for concurrent use.
type Store struct {
	db    *bolt.DB
	owner identity.Identifier
}

// OpenStore opens the store of an authority, or makes one where there is no
// file. A file that is cut off, broken, another authority's or of a later
// version is refused before anything in it is used. The error wraps [ErrInUse]
// or [ErrDamaged] if it is that.
func OpenStore(path string, owner identity.Identifier) (*Store, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = createStore(path, owner)
	}
	if err != nil {
		return nil, storeError("opening", path, err)
	}
	if err := checkFile(path, owner); err != nil {
		return nil, storeError("opening", path, err)
	}
	db, err := openBolt(path, false)
	if err != nil {
		return nil, storeError("opening", path, err)
	}
	s := &Store{db: db, owner: owner}
	// What was checked a moment ago may have been exchanged since.
	if err := db.View(func(tx *bolt.Tx) error { return checkMeta(tx, owner) }); err != nil {
		return nil, storeError("opening", path, errors.Join(err, db.Close()))
	}
	return s, nil
}

// Close lets others open the store. It waits for transactions under way.
func (s *Store) Close() error { return s.db.Close() }

// Owner returns whose store it is.
func (s *Store) Owner() identity.Identifier { return s.owner }

func storeError(doing, path string, err error) error {
	// The path stands here already.
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == path {
		err = pe.Err
	}
	return fmt.Errorf("%s the authority's store %s: %w", doing, path, err)
}

// openBolt opens a file that exists, and whose length has been checked unless
// readOnly.
func openBolt(path string, readOnly bool) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockPatience, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType, NoStatistics: true,
		InitialMmapSize: initialMap(readOnly),
		// It is never made here: a file that has gone missing is no empty store.
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag&^os.O_CREATE, mode)
		},
	})
	var system syscall.Errno
	switch {
	case err == nil:
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrInUse
	case errors.As(err, &system):
		return nil, err
	default: // bbolt's own: the file is none of its files
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	db.MaxBatchDelay, db.AllocSize = batchDelay, growBy
	return db, nil
}

// initialMap returns how much of the address space a store takes at once, in bytes.
// Whoever maps more later waits until nobody reads, and all others with it: a
// backup reads for as long as it takes.
func initialMap(readOnly bool) int {
	const enough = 1 << 30 // for 100,000 members with all that they may have
	if readOnly || !sparseMaps || math.MaxInt == math.MaxInt32 {
		return 0
	}
	return enough
}

// createStore makes an empty store, whole or not at all.
func createStore(path string, owner identity.Identifier) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // it has its name, or is of no use
	if err := temp.Close(); err != nil {
		return err
	}
	db, err := bolt.Open(temp.Name(), 0o600, &bolt.Options{Timeout: lockPatience, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		return errors.Join(meta.Put(keySchema, u64(schema)), meta.Put(keyIdentifier, owner[:]), meta.Put(keyNumber, u64(0)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return publishFile(temp.Name(), path)
}

// publishFile gives a finished file its name, which nothing must have yet.
func publishFile(temp, path string) error {
	// A link, since a rename would replace what another process has made.
	if err := os.Link(temp, path); err != nil {
		var le *os.LinkError
		if errors.As(err, &le) {
			err = le.Err
		}
		return fmt.Errorf("giving the file its name: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// checkMeta checks whose store it is, and of which version.
func checkMeta(tx *bolt.Tx, owner identity.Identifier) error {
	for _, name := range buckets() {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: it has no bucket %s", ErrDamaged, name)
		}
	}
	meta := tx.Bucket(bucketMeta)
	version, err := readU64(meta.Get(keySchema))
	switch {
	case err != nil:
		return fmt.Errorf("%w: version: %w", ErrDamaged, err)
	case version != schema:
		return fmt.Errorf("it has version %d, and this program reads %d: run the program that wrote it, or restore a backup of version %d", version, schema, schema)
	}
	if _, err := readU64(meta.Get(keyNumber)); err != nil {
		return fmt.Errorf("%w: number of the revocation list: %w", ErrDamaged, err)
	}
	if id := meta.Get(keyIdentifier); !slices.Equal(id, owner[:]) {
		if len(id) != len(owner) {
			return fmt.Errorf("%w: it says of no authority that it is its own", ErrDamaged)
		}
		return fmt.Errorf("it is that of authority %s, not of %s: name the store or the identity that goes with the other", identity.Identifier(id), owner)
	}
	return nil
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func readU64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%d bytes, want 8", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// getMember returns the member of that identifier, nil if there is none.
func getMember(tx *bolt.Tx, id identity.Identifier) (*member, error) {
	b := tx.Bucket(bucketMembers).Get(id[:])
	if b == nil {
		return nil, nil
	}
	m, err := decodeMember(b)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w: %w", id, ErrDamaged, err)
	}
	return m, nil
}

// putMember stores a member that was was before; nil if it was none.
func putMember(tx *bolt.Tx, id identity.Identifier, was, is *member) error {
	b, err := is.encode()
	if err != nil {
		return err
	}
	if was != nil && was.subject != "" && was.subject != is.subject {
		if err := tx.Bucket(bucketSubjects).Delete(subjectKey(was.subject, id)); err != nil {
			return err
		}
	}
	if is.subject != "" {
		if err := tx.Bucket(bucketSubjects).Put(subjectKey(is.subject, id), nil); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMembers).Put(id[:], b)
}

func deleteMember(tx *bolt.Tx, id identity.Identifier, m *member) error {
	if m.subject != "" {
		if err := tx.Bucket(bucketSubjects).Delete(subjectKey(m.subject, id)); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMembers).Delete(id[:])
}

func subjectKey(subject string, id identity.Identifier) []byte {
	return append(append([]byte(subject), 0), id[:]...)
}

// countSubject returns how many members have a subject, up to most.
func countSubject(tx *bolt.Tx, subject string, most int) (n int) {
	prefix := append([]byte(subject), 0)
	c := tx.Bucket(bucketSubjects).Cursor()
	for k, _ := c.Seek(prefix); n < most && len(k) == len(prefix)+len(identity.Identifier{}) && string(k[:len(prefix)]) == string(prefix); k, _ = c.Next() {
		n++
	}
	return n
}

// getTicket returns the ticket of that id, nil if there is none.
func getTicket(tx *bolt.Tx, id credential.TicketID) (*ticketRecord, error) {
	b := tx.Bucket(bucketTickets).Get(id[:])
	if b == nil {
		return nil, nil
	}
	t, err := decodeTicket(b)
	if err != nil {
		return nil, fmt.Errorf("ticket %s: %w: %w", id, ErrDamaged, err)
	}
	return t, nil
}

// putRecord stores a record under its key.
func putRecord(tx *bolt.Tx, bucket, key []byte, record interface{ encode() ([]byte, error) }) error {
	b, err := record.encode()
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, b)
}
