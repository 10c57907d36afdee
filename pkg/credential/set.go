package credential

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of what an authority has revoked.
const (
	MaxRevocations = 200_000 // identifiers and serials together
	// DropAfter is how long an authority keeps a serial revoked after its
	// credential has ended: a verifier's clock may be MaxSkew behind the
	// authority's, and let the credential hold for MaxSkew longer.
	DropAfter = 2 * MaxSkew
)

const stateLabel = "culvert revocation state v1\x00"

// Lengths of the records of a [Set], in bytes: an identifier; a serial and
// the end of its credential.
const (
	serialKey    = 16
	serialRecord = serialKey + 8
)

// A Set is what an authority has revoked: identifiers, for ever, and serials,
// until their credentials have ended. It is immutable and safe for concurrent
// use; nil is the empty set. It costs 32 bytes an identifier and 24 a serial,
// and asking it takes a binary search.
type Set struct {
	identifiers []byte // records of 32 bytes
	serials     []byte // records of 16 bytes and a u64, seconds
}

// A RevokedSerial is a credential that is revoked.
type RevokedSerial struct {
	Serial Serial
	End    time.Time // the credential's NotAfter
}

func identifierRecords(b []byte) packed {
	return packed{b, len(identity.Identifier{}), len(identity.Identifier{})}
}
func serialRecords(b []byte) packed { return packed{b, serialRecord, serialKey} }
func serialKeys(b []byte) packed    { return packed{b, serialKey, serialKey} }

// parseSet makes a set of records that somebody has sent, and keeps them.
func parseSet(identifiers, serials []byte) (*Set, error) {
	s := &Set{identifiers, serials}
	if err := s.ids().check(); err != nil {
		return nil, fmt.Errorf("identifiers: %w", err)
	}
	if err := s.sers().check(); err != nil {
		return nil, fmt.Errorf("serials: %w", err)
	}
	if s.Len() > MaxRevocations {
		return nil, fmt.Errorf("%d entries, more than %d", s.Len(), MaxRevocations)
	}
	for i := range s.sers().len() {
		if binary.BigEndian.Uint64(s.sers().at(i)[serialKey:]) > maxUnix {
			return nil, fmt.Errorf("serials: entry %d of %d ends after the year 9999", i+1, s.sers().len())
		}
	}
	return s, nil
}

func (s *Set) ids() packed {
	if s == nil {
		return identifierRecords(nil)
	}
	return identifierRecords(s.identifiers)
}

func (s *Set) sers() packed {
	if s == nil {
		return serialRecords(nil)
	}
	return serialRecords(s.serials)
}

// Len returns the number of entries.
func (s *Set) Len() int { return s.ids().len() + s.sers().len() }

// HasIdentifier reports whether an identifier is revoked.
func (s *Set) HasIdentifier(id identity.Identifier) bool {
	_, ok := s.ids().find(id[:])
	return ok
}

// HasSerial reports whether a credential is revoked.
func (s *Set) HasSerial(serial Serial) bool {
	_, ok := s.sers().find(serial[:])
	return ok
}

// Hash returns what names the whole of s: SHA-256 over a label, the number of
// identifiers as a u32, and all records in ascending order.
func (s *Set) Hash() [32]byte {
	h := sha256.New()
	h.Write([]byte(stateLabel))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(s.ids().len())))
	h.Write(s.ids().records)
	h.Write(s.sers().records)
	return [32]byte(h.Sum(nil))
}

// Add returns s with more revoked. What is revoked already stays as it is. It
// fails when that makes more than [MaxRevocations], or a serial comes with two
// ends.
func (s *Set) Add(identifiers []identity.Identifier, serials []RevokedSerial) (*Set, error) {
	moreIDs := make([]identity.Identifier, 0, len(identifiers))
	for _, id := range identifiers {
		if !s.HasIdentifier(id) {
			moreIDs = append(moreIDs, id)
		}
	}
	slices.SortFunc(moreIDs, func(a, b identity.Identifier) int { return bytes.Compare(a[:], b[:]) })
	moreIDs = slices.Compact(moreIDs)

	moreSerials := make([][serialRecord]byte, 0, len(serials))
	for _, r := range serials {
		end, err := seconds(r.End)
		if err != nil {
			return nil, fmt.Errorf("revoking credential %s: %w", r.Serial, err)
		}
		record := [serialRecord]byte(binary.BigEndian.AppendUint64(r.Serial[:], end))
		if i, ok := s.sers().find(r.Serial[:]); !ok {
			moreSerials = append(moreSerials, record)
		} else if !bytes.Equal(s.sers().at(i), record[:]) {
			return nil, fmt.Errorf("revoking credential %s: it is revoked with another end", r.Serial)
		}
	}
	slices.SortFunc(moreSerials, func(a, b [serialRecord]byte) int { return bytes.Compare(a[:], b[:]) })
	moreSerials = slices.Compact(moreSerials)
	return s.addRecords(
		join(moreIDs, func(id *identity.Identifier) []byte { return id[:] }),
		join(moreSerials, func(r *[serialRecord]byte) []byte { return r[:] }),
	)
}

// addRecords returns s and the records, none of which it has.
func (s *Set) addRecords(identifiers, serials []byte) (*Set, error) {
	ids, err := s.ids().union(identifierRecords(identifiers))
	if err != nil {
		return nil, fmt.Errorf("adding identifiers: %w", err)
	}
	sers, err := s.sers().union(serialRecords(serials))
	if err != nil {
		return nil, fmt.Errorf("adding serials: %w", err)
	}
	return parseSet(ids.records, sers.records)
}

// Prune returns s without the serials whose credentials ended [DropAfter] or
// longer before now.
func (s *Set) Prune(now time.Time) *Set {
	out := &Set{identifiers: s.ids().records}
	for i := range s.sers().len() {
		if record := s.sers().at(i); !droppable(record, now) {
			out.serials = append(out.serials, record...)
		}
	}
	return out
}

// droppable reports whether a serial's record need not be kept at now.
func droppable(record []byte, now time.Time) bool {
	return !instant(binary.BigEndian.Uint64(record[serialKey:])).Add(DropAfter).After(now)
}

// checkFollows checks that nothing that is revoked in old is not in s, but for
// serials that could be dropped by the time s was issued.
func (s *Set) checkFollows(old *Set, issued time.Time) error {
	err := old.ids().walk(s.ids(), func(was, is []byte) error {
		if is == nil {
			return fmt.Errorf("identifier %s is not in it any more, and was revoked for ever", identity.Identifier(was))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return old.sers().walk(s.sers(), func(was, is []byte) error {
		switch {
		case was == nil || bytes.Equal(was, is):
			return nil
		case is == nil && droppable(was, issued):
			return nil
		case is == nil:
			return fmt.Errorf("credential %s is not in it any more, before its end", Serial(was[:serialKey]))
		}
		return fmt.Errorf("credential %s has another end than before", Serial(was[:serialKey]))
	})
}

// join puts records of one length behind each other.
func join[R any](records []R, view func(*R) []byte) []byte {
	var out []byte
	for i := range records {
		out = append(out, view(&records[i])...)
	}
	return out
}
