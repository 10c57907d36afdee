package node

import "sync"

// reached are the links that the address of another one was shown by: on the return
// route of something that has come by that one and gone on by them. Only who was written
// to so writes back; the address by itself, wherever it got to, is of no use.
type reached struct {
	mu    sync.Mutex
	links map[Address]struct{}
	prune int // when there are as many, those that have ended are taken out
}

const leastPrune = 64

func (r *reached) add(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.links[l.address]; ok {
		return
	}
	if len(r.links) >= max(r.prune, leastPrune) {
		for a := range r.links {
			if l.node.lookup(a) == nil {
				delete(r.links, a)
			}
		}
		r.prune = 2 * len(r.links)
	}
	if r.links == nil {
		r.links = map[Address]struct{}{}
	}
	r.links[l.address] = struct{}{}
}

// by reports whether the address was shown by l.
func (r *reached) by(l *link) bool {
	if l == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.links[l.address]
	return ok
}
