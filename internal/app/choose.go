package app

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
)

const (
	// maxReplicas is how many replicas of a service an inlet uses, of those that have
	// a path and have proven that they offer it.
	maxReplicas = 8
	// maxProbes is how many it keeps trying to reach beside them.
	maxProbes = 8
)

// A replicaKey names a replica: one process of an outlet's.
type replicaKey struct {
	outlet   identity.Identifier
	instance channel.Instance
}

func keyOf(r relay.Replica) replicaKey { return replicaKey{r.Outlet, r.Instance} }

// weight is the replica's in the order of one inlet: rendezvous hashing (Thaler and
// Ravishankar, "Using name-based mappings to increase hit rates", 1998). Each inlet
// has an order of its own, so that many inlets spread over many replicas; and who
// comes or goes moves nothing but its own place.
func (k replicaKey) weight(inlet channel.Instance) [sha256.Size]byte {
	b := make([]byte, 0, len(inlet)+len(k.outlet)+len(k.instance))
	b = append(append(append(b, inlet[:]...), k.outlet[:]...), k.instance[:]...)
	return sha256.Sum256(b)
}

// ranked returns a relay's list in the order in which the inlet wants it: last what
// it has given up for others, the longest ago first; the rest by weight.
func ranked(list []relay.Replica, inlet channel.Instance, givenUp map[replicaKey]time.Time) []replicaKey {
	type place struct {
		key    replicaKey
		at     time.Time
		weight [sha256.Size]byte
	}
	places := make([]place, len(list))
	for i, r := range list {
		k := keyOf(r)
		places[i] = place{k, givenUp[k], k.weight(inlet)}
	}
	slices.SortFunc(places, func(a, b place) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c // the zero time, of those that were not given up, comes first
		}
		return bytes.Compare(b.weight[:], a.weight[:])
	})
	keys := make([]replicaKey, len(places))
	for i, p := range places {
		keys[i] = p.key
	}
	return keys
}

// interleaved returns the members of all lists, each once: the first of each list,
// then the second of each, and so on. So no relay's list, however long it is, gets
// before more of another one's than its own share.
func interleaved(lists [][]replicaKey) (all []replicaKey) {
	seen := map[replicaKey]struct{}{}
	for next := true; next; {
		next = false
		for i, list := range lists {
			for len(list) > 0 {
				k := list[0]
				list = list[1:]
				if _, twice := seen[k]; !twice {
					seen[k] = struct{}{}
					all = append(all, k)
					break
				}
			}
			lists[i] = list
			next = next || len(list) > 0
		}
	}
	return all
}

// choose returns those that the inlet keeps a link to: the first maxReplicas that
// are in use, and beside them the first maxProbes before these that are not, which
// it tries to reach. So what does not work, or does not exist, takes no working
// one's place. crowded reports whether there are others for which there was no room.
func choose(order []replicaKey, inUse func(replicaKey) bool) (chosen []replicaKey, crowded bool) {
	used, probes := 0, 0
	for _, k := range order {
		switch {
		case used == maxReplicas:
			return chosen, true
		case inUse(k):
			used++
		case probes == maxProbes:
			crowded = true
			continue
		default:
			probes++
		}
		chosen = append(chosen, k)
	}
	return chosen, crowded
}
