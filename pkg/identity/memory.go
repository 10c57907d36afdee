package identity

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
)

// MemoryLimit is how many identities a [Memory] holds if it is not told: with
// two changes each some 3 MiB, with [MaxChanges] each 20.
const MemoryLimit = 16 << 10

// ErrRolledBack says that a history is the beginning of one that was seen
// before: whoever shows it uses a key that has been replaced.
var ErrRolledBack = errors.New("history is older than one seen before")

// A Memory holds the newest history that was seen of each identity, so that one
// whose key was replaced cannot be spoken for with the key before. It is safe
// for concurrent use.
//
// Only histories of two or more changes take room: one with a single change is
// the beginning of every other of its identity, so that it cannot diverge from
// one and has nothing to be rolled back to. A full Memory gives up the identity
// that was accepted longest ago, since those in use come back and are looked at
// again by that; what is known to have diverged goes last, since nothing that
// comes back would show it again. What was given up is as if it had never been
// seen. So who may be accepted at all is for the caller to bound: if strangers
// are, they can push out everybody else.
type Memory struct {
	limit   int
	changed chan struct{} // capacity 1

	mu    sync.Mutex
	byID  map[Identifier]*list.Element
	order *list.List // of *seen, the one accepted longest ago first
}

// A seen is what a Memory holds of one identity: the hashes of its changes, the
// first of which is the identifier.
type seen struct {
	hashes   [][32]byte
	diverged bool
}

func (s *seen) identifier() Identifier { return s.hashes[0] }

// NewMemory returns a Memory that holds limit identities at most, [MemoryLimit]
// if limit is 0.
func NewMemory(limit int) *Memory {
	if limit <= 0 {
		limit = MemoryLimit
	}
	return &Memory{limit: limit, changed: make(chan struct{}, 1), byID: map[Identifier]*list.Element{}, order: list.New()}
}

// Accept takes h, which has been verified, for the newest history of its
// identity, if it is the one held or continues it. Otherwise the error wraps
// [ErrRolledBack] or [ErrDiverged]. Once two histories of an identity have
// diverged both are refused, and whatever continues them, for as long as the
// Memory holds it: nobody can say which of the two is a thief's.
func (m *Memory) Accept(h *History) error { return m.look(h, true) }

// Check says whether [Memory.Accept] would take h. It keeps nothing of h but
// that it diverges from what is held, which only the identity's own keys can
// bring about.
func (m *Memory) Check(h *History) error { return m.look(h, false) }

func (m *Memory) look(h *History, keep bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lookLocked(&seen{hashes: h.hashes}, keep)
}

// lookLocked is look for what is shown, and merges it where keep says so.
func (m *Memory) lookLocked(shown *seen, keep bool) error {
	e := m.byID[shown.identifier()]
	if e == nil {
		if keep && (len(shown.hashes) > 1 || shown.diverged) {
			m.addLocked(&seen{shown.hashes, shown.diverged})
		}
		return shown.verdict(nil)
	}
	held := e.Value.(*seen)
	err := shown.verdict(held)
	if errors.Is(err, ErrDiverged) {
		if !held.diverged {
			held.diverged = true
			m.signal()
		}
		return err
	}
	if err == nil && keep {
		m.order.MoveToBack(e)
		if len(shown.hashes) > len(held.hashes) {
			held.hashes = shown.hashes
			m.signal()
		}
	}
	return err
}

// verdict says whether s may be shown where held (nil: nothing) is known.
func (s *seen) verdict(held *seen) error {
	if held == nil {
		held = &seen{hashes: s.hashes}
	}
	err := continues(s.hashes, held.hashes)
	if held.diverged || s.diverged {
		err = ErrDiverged
	}
	switch {
	case errors.Is(err, ErrDiverged):
		return fmt.Errorf("identity %s: %w: its key was stolen or used twice: make a new identity and stop trusting this one", s.identifier(), err)
	case err != nil:
		return fmt.Errorf("identity %s: %w: %d of %d changes: put its newest identity file in place; if that is lost, make a new identity",
			s.identifier(), err, len(s.hashes), len(held.hashes))
	}
	return nil
}

// continues says why a history with the hashes next cannot take the place of
// one, of the same identity, with the hashes held: [ErrRolledBack] or
// [ErrDiverged]. A hash covers all that stands before it.
func continues(next, held [][32]byte) error {
	last := min(len(next), len(held)) - 1
	switch {
	case next[last] != held[last]:
		return ErrDiverged
	case len(next) < len(held):
		return ErrRolledBack
	}
	return nil
}

func (m *Memory) addLocked(s *seen) {
	for len(m.byID) >= m.limit {
		e := m.leastLocked()
		delete(m.byID, e.Value.(*seen).identifier())
		m.order.Remove(e)
	}
	m.byID[s.identifier()] = m.order.PushBack(s)
	m.signal()
}

// leastLocked returns what is given up first. There is one.
func (m *Memory) leastLocked() *list.Element {
	for e := m.order.Front(); e != nil; e = e.Next() {
		if !e.Value.(*seen).diverged {
			return e
		}
	}
	return m.order.Front()
}

// Len returns how many identities are held.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byID)
}

// Changed returns a channel that receives after something worth keeping has
// changed since the last receive: [Memory.Sync] is due. It is never closed.
func (m *Memory) Changed() <-chan struct{} { return m.changed }

func (m *Memory) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}
