package credential

import (
	"bytes"
	"fmt"
	"sort"
)

// A packed is a sorted set of records of one length, one behind the other, as
// they are signed, sent and searched: so reading a set costs no more memory
// than its bytes. The first key bytes of a record are its key; keys ascend
// strictly. It is immutable.
type packed struct {
	records   []byte
	size, key int
}

func (p packed) len() int { return len(p.records) / p.size }

func (p packed) at(i int) []byte { return p.records[i*p.size : (i+1)*p.size : (i+1)*p.size] }

func (p packed) keyAt(i int) []byte { return p.records[i*p.size:][:p.key] }

// find returns the place of the record with a key, and reports whether there
// is one. It looks at no more than log2(len)+1 records.
func (p packed) find(key []byte) (int, bool) {
	return sort.Find(p.len(), func(i int) int { return bytes.Compare(key, p.keyAt(i)) })
}

// check says what is wrong with records that somebody has sent.
func (p packed) check() error {
	if len(p.records)%p.size != 0 {
		return fmt.Errorf("%d bytes, no multiple of %d", len(p.records), p.size)
	}
	for i := 1; i < p.len(); i++ {
		if bytes.Compare(p.keyAt(i-1), p.keyAt(i)) >= 0 {
			return fmt.Errorf("entry %d of %d is not above the one before it", i+1, p.len())
		}
	}
	return nil
}

// walk goes through p and q together, in ascending order of keys, until visit
// fails. What is in one of them only is visited with nil for the other.
func (p packed) walk(q packed, visit func(mine, theirs []byte) error) error {
	for i, j := 0, 0; i < p.len() || j < q.len(); {
		var order int
		switch {
		case i == p.len():
			order = 1
		case j == q.len():
			order = -1
		default:
			order = bytes.Compare(p.keyAt(i), q.keyAt(j))
		}
		var mine, theirs []byte
		if order <= 0 {
			mine, i = p.at(i), i+1
		}
		if order >= 0 {
			theirs, j = q.at(j), j+1
		}
		if err := visit(mine, theirs); err != nil {
			return err
		}
	}
	return nil
}

// union returns the records of p and q. One key in both is an error.
func (p packed) union(q packed) (packed, error) {
	out := make([]byte, 0, len(p.records)+len(q.records))
	err := p.walk(q, func(mine, theirs []byte) error {
		if mine != nil && theirs != nil {
			return fmt.Errorf("entry %x is in it already", mine[:p.key])
		}
		out = append(append(out, mine...), theirs...)
		return nil
	})
	return packed{out, p.size, p.key}, err
}

// without returns p without the records whose keys are in keys. A key that p
// does not have is an error.
func (p packed) without(keys packed) (packed, error) {
	out := make([]byte, 0, len(p.records))
	err := p.walk(keys, func(mine, theirs []byte) error {
		switch {
		case mine == nil:
			return fmt.Errorf("entry %x is not in it", theirs[:p.key])
		case theirs == nil:
			out = append(out, mine...)
		}
		return nil
	})
	return packed{out, p.size, p.key}, err
}
