package credential

import (
	"bytes"
	"container/list"
	"maps"
	"sync"

	"github.com/culvert-net/culvert/pkg/identity"
)

// maxNewest bounds of how many subjects, each at one authority, a Verifier remembers
// the newest credential: some 40 MiB with few attributes.
const maxNewest = 64 << 10

// A bearer is whom a credential is for, and whose it is.
type bearer struct{ issuer, subject identity.Identifier }

// newest remembers the newest credential of each bearer that was shown, by the
// subject itself. The one looked at longest ago is given up first; so that those of
// peers that are connected, who are asked about again and again, stay. Nobody but a
// trusted authority's members takes room in it, one place each.
type newest struct {
	limit int

	mu    sync.Mutex
	of    map[bearer]*list.Element
	order *list.List // of *Credential, the one looked at longest ago first
}

func newNewest(limit int) *newest {
	return &newest{limit: limit, of: map[bearer]*list.Element{}, order: list.New()}
}

// look returns the newest credential of c's bearer that is known, of which c is one
// from now on.
func (n *newest) look(c *Credential) *Credential {
	b := bearer{c.Issuer, c.Subject}
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.of[b]; e != nil {
		n.order.MoveToBack(e)
		if c.replaces(e.Value.(*Credential)) {
			e.Value = c
		}
		return e.Value.(*Credential)
	}
	for len(n.of) >= n.limit {
		e := n.order.Front()
		old := e.Value.(*Credential)
		delete(n.of, bearer{old.Issuer, old.Subject})
		n.order.Remove(e)
	}
	n.of[b] = n.order.PushBack(c)
	return c
}

// forget gives c up, if it is what is known of its bearer.
func (n *newest) forget(c *Credential) {
	b := bearer{c.Issuer, c.Subject}
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.of[b]; e != nil && e.Value.(*Credential) == c {
		delete(n.of, b)
		n.order.Remove(e)
	}
}

// keep gives up those of all issuers but these.
func (n *newest) keep(issuers map[identity.Identifier]*authority) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.of, func(b bearer, e *list.Element) bool {
		if issuers[b.issuer] != nil {
			return false
		}
		n.order.Remove(e)
		return true
	})
}

// replaces reports whether c comes after another one of the same bearer: it begins
// later, or then ends later. Of two that an authority has issued in one second for
// the same time neither is newer; so that all agree, the serial says.
func (c *Credential) replaces(other *Credential) bool {
	switch {
	case !c.NotBefore.Equal(other.NotBefore):
		return c.NotBefore.After(other.NotBefore)
	case !c.NotAfter.Equal(other.NotAfter):
		return c.NotAfter.After(other.NotAfter)
	}
	return bytes.Compare(c.Serial[:], other.Serial[:]) > 0
}
