package authority

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// keepNumbers is how many lists back there are deltas from.
	keepNumbers = 1024
	// maxDeltaBytes bounds the deltas that are kept ready.
	maxDeltaBytes = 32 << 20
)

// A published list is a revocation list as members are sent it.
type published struct {
	list     *credential.List
	signer   [32]byte      // hash of the change that signed it
	replaced chan struct{} // closed when there is a newer one

	full func() ([]byte, error) // its encoding, made once

	mu     sync.Mutex        // held while a delta is made, so that each is made once
	deltas map[uint64][]byte // by the number that each leads from; nil for one longer than the list
	bytes  int               // of deltas together
}

// list returns the newest list.
func (a *Authority) list() *published {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.current
}

// Number returns the number of the newest revocation list, and how many entries
// it has.
func (a *Authority) Number() (number uint64, entries int) {
	l := a.list().list
	return l.Number(), l.Set().Len()
}

// Revoking is what a new list has that the one before had not.
type revoking struct {
	identifiers []identity.Identifier
	serials     []revokingSerial
	reason      string
}

type revokingSerial struct {
	credential.RevokedSerial
	subject identity.Identifier
}

// makeListLocked makes the list of is, which follows was, stores it and then lets
// it out. On an error nothing has changed.
func (a *Authority) makeListLocked(now time.Time, was, is *credential.Set, r revoking) (*credential.List, error) {
	signer := a.signer.Load()
	stored, err := a.store.number()
	if err != nil {
		return nil, err
	}
	now = wholeSeconds(now)
	number := max(stored+1, unix(now))
	var next time.Time
	if a.cfg.ListLifetime != 0 {
		next = now.Add(a.cfg.ListLifetime)
	}
	l, err := credential.SignList(signer, number, now, next, is)
	if err != nil {
		return nil, err
	}
	if err := a.store.putList(l, was, r); err != nil {
		return nil, fmt.Errorf("storing revocation list %d: %w", number, err)
	}
	p := &published{list: l, signer: signer.History().LastHash(), replaced: make(chan struct{}), full: sync.OnceValues(l.Full), deltas: map[uint64][]byte{}}
	a.mu.Lock()
	old := a.current
	a.current = p
	a.mu.Unlock()
	if old != nil {
		close(old.replaced)
	}
	if a.cfg.Trace.Published != nil {
		a.cfg.Trace.Published(number, is.Len())
	}
	return l, nil
}

// since returns what leads a member that holds list number from to the newest.
func (a *Authority) since(p *published, from uint64) (credential.Answer, error) {
	if from == p.list.Number() {
		return credential.Unchanged{Number: from}, nil
	}
	delta, err := a.delta(p, from)
	if err != nil {
		return nil, err
	}
	if delta != nil {
		return credential.DeltaRevocations{Delta: delta}, nil
	}
	full, err := p.full()
	if err != nil {
		return nil, err
	}
	return credential.FullRevocations{List: full}, nil
}

// delta returns what leads from an earlier list to p, nil if the whole list is
// to be sent: since that is shorter, or the earlier one is not known any more.
func (a *Authority) delta(p *published, from uint64) ([]byte, error) {
	if from == 0 || from > p.list.Number() {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, ok := p.deltas[from]; ok {
		return d, nil
	}
	set, err := a.store.setAt(from)
	if err != nil || set == nil {
		return nil, err
	}
	full, err := p.full()
	if err != nil {
		return nil, err
	}
	d, err := p.list.DeltaFrom(from, set)
	if err != nil || len(d) >= len(full) {
		// It fails where this machine's clock has gone back behind the end of a
		// credential that was dropped meanwhile: the member judges the whole list.
		d = nil
	}
	if p.bytes+len(d) <= maxDeltaBytes {
		p.deltas[from] = d
		p.bytes += len(d)
	}
	return d, nil
}

func (s *Store) number() (n uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		n, err = readU64(tx.Bucket(bucketMeta).Get(keyNumber))
		return err
	})
	return n, err
}

// putList stores that l, which follows a list of was, is the newest.
func (s *Store) putList(l *credential.List, was *credential.Set, r revoking) error {
	number := l.Number()
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, id := range r.identifiers {
			m, err := getMember(tx, id)
			if err != nil {
				return err
			}
			if m != nil {
				if err := deleteMember(tx, id, m); err != nil {
					return err
				}
			}
			if err := putRecord(tx, bucketIdentifiers, id[:], &revocation{at: l.Issued(), number: number, reason: r.reason}); err != nil {
				return err
			}
		}
		for _, e := range r.serials {
			v := &revocation{at: l.Issued(), number: number, reason: r.reason, end: e.End, subject: e.subject}
			if err := putRecord(tx, bucketSerials, e.Serial[:], v); err != nil {
				return err
			}
		}
		if l.Set().Len() < was.Len()+len(r.identifiers)+len(r.serials) {
			if err := dropSerials(tx, l); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketMeta).Put(keyNumber, u64(number)); err != nil {
			return err
		}
		if err := tx.Bucket(bucketNumbers).Put(u64(number), u64(unix(l.Issued()))); err != nil {
			return err
		}
		return forgetNumbers(tx)
	})
}

// dropSerials moves what l has not any more to where deltas find it.
func dropSerials(tx *bolt.Tx, l *credential.List) error {
	type move struct {
		key    []byte
		record dropped
	}
	var moves []move
	err := tx.Bucket(bucketSerials).ForEach(func(k, v []byte) error {
		if l.Set().HasSerial(credential.Serial(k)) {
			return nil
		}
		r, err := decodeRevocation(v, true)
		if err != nil {
			return fmt.Errorf("revoked credential %x: %w: %w", k, ErrDamaged, err)
		}
		moves = append(moves, move{bytes.Clone(k), dropped{r.end, r.number, l.Number()}})
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range moves {
		err := tx.Bucket(bucketSerials).Delete(m.key)
		if err == nil && m.record.number < m.record.without {
			err = putRecord(tx, bucketDropped, m.key, &m.record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetNumbers gives up the oldest lists, and what only deltas from them need.
func forgetNumbers(tx *bolt.Tx) error {
	numbers := tx.Bucket(bucketNumbers)
	c := numbers.Cursor()
	n := 0
	var oldest uint64 // that is kept
	var old [][]byte
	for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
		if n++; n > keepNumbers {
			old = append(old, bytes.Clone(k))
			continue
		}
		oldest = binary.BigEndian.Uint64(k)
	}
	for _, k := range old {
		if err := numbers.Delete(k); err != nil {
			return err
		}
	}
	if len(old) == 0 {
		return nil
	}
	return deleteWhere(tx.Bucket(bucketDropped), func(k, v []byte) (bool, error) {
		d, err := decodeDropped(v)
		if err != nil {
			return false, fmt.Errorf("dropped credential %x: %w: %w", k, ErrDamaged, err)
		}
		return d.without <= oldest, nil
	})
}

// deleteWhere deletes the keys for which which says so.
func deleteWhere(b *bolt.Bucket, which func(k, v []byte) (bool, error)) error {
	var keys [][]byte
	err := b.ForEach(func(k, v []byte) error {
		yes, err := which(k, v)
		if yes {
			keys = append(keys, bytes.Clone(k))
		}
		return err
	})
	for _, k := range keys {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// loadSet returns all that is revoked.
func (s *Store) loadSet() (set *credential.Set, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		set, err = setBefore(tx, ^uint64(0))
		return err
	})
	return set, err
}

// setAt returns what the list of that number had, nil if there was none of that
// number of late.
func (s *Store) setAt(number uint64) (set *credential.Set, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(bucketNumbers).Get(u64(number)) == nil {
			return nil
		}
		set, err = setBefore(tx, number)
		return err
	})
	return set, err
}

// setBefore returns what the lists up to number have added, without what they
// have dropped. It is not nil.
func setBefore(tx *bolt.Tx, number uint64) (*credential.Set, error) {
	var ids []identity.Identifier
	var serials []credential.RevokedSerial
	err := errors.Join(
		tx.Bucket(bucketIdentifiers).ForEach(func(k, v []byte) error {
			r, err := decodeRevocation(v, false)
			if err == nil && r.number <= number {
				ids = append(ids, identity.Identifier(k))
			}
			return err
		}),
		tx.Bucket(bucketSerials).ForEach(func(k, v []byte) error {
			r, err := decodeRevocation(v, true)
			if err == nil && r.number <= number {
				serials = append(serials, credential.RevokedSerial{Serial: credential.Serial(k), End: r.end})
			}
			return err
		}),
		tx.Bucket(bucketDropped).ForEach(func(k, v []byte) error {
			d, err := decodeDropped(v)
			if err == nil && d.number <= number && number < d.without {
				serials = append(serials, credential.RevokedSerial{Serial: credential.Serial(k), End: d.end})
			}
			return err
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("reading what is revoked: %w: %w", ErrDamaged, err)
	}
	return (*credential.Set)(nil).Add(ids, serials)
}
