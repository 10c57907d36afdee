package app

import (
	"time"

	"github.com/culvert-net/culvert/pkg/relay"
)

// Why a replica takes no new streams any more.
const (
	whyDisplaced = "others are preferred"
	whyUnlisted  = "no relay lists it any more, and it cannot be reached"
	whyDraining  = "its outlet is going away"
	whyUnproven  = "it does not prove that it offers the service"
)

// An arrangement is what arrange has found to be done outside the lock.
type arrangement struct {
	started []*replica
	found   []replicaKey
	ended   []*replica
	why     []string // of ended
	missing bool     // relays are to be asked
	next    time.Time
}

// arrange chooses the replicas that new streams go to, by what is known now, and
// returns those whose links are to be run, and when it is to be called again: zero
// for when something has changed.
func (b *balancer) arrange(now time.Time) (started []*replica, next time.Time) {
	a := b.arranged(now)
	for i, r := range a.ended {
		r.link.finish()
		if r.proven {
			b.trace.lost(r.replicaKey, a.why[i])
		}
	}
	for _, k := range a.found {
		b.trace.found(k)
	}
	if a.missing {
		b.discovery.hurry()
	}
	if len(a.ended)+len(a.started) > 0 {
		b.notify()
	}
	return a.started, a.next
}

func (b *balancer) arranged(now time.Time) *arrangement {
	a := &arrangement{}
	lists, until := b.discovery.listed(now)
	a.next = until
	b.mu.Lock()
	defer b.mu.Unlock()
	listed := b.noteLocked(a, lists, now)
	b.lookLocked(a, now)
	order := make([][]replicaKey, len(lists))
	for i, list := range lists {
		order[i] = ranked(b.candidatesLocked(list), b.inlet, b.givenUp)
	}
	keys, crowded := choose(interleaved(order), func(k replicaKey) bool {
		r := b.chosen[k]
		return r != nil && r.down.IsZero()
	})
	b.crowded = crowded
	wanted := make(map[replicaKey]struct{}, len(keys))
	for _, k := range keys {
		wanted[k] = struct{}{}
	}
	for k, r := range b.chosen {
		if why := b.endLocked(a, k, wanted, listed, now); why != "" {
			delete(b.chosen, k)
			a.ended, a.why = append(a.ended, r), append(a.why, why)
		}
	}
	for _, k := range keys {
		if b.chosen[k] == nil {
			r := &replica{replicaKey: k, link: b.newLink(k), draining: listed[k].Draining, down: now, waited: now}
			b.adopt(r)
			b.chosen[k], b.all[r] = r, struct{}{}
			a.started = append(a.started, r)
		}
	}
	if crowded {
		for _, r := range b.chosen {
			if !r.down.IsZero() {
				a.next = earlier(a.next, r.waited.Add(giveUpAfter))
			}
		}
	}
	return a
}

// noteLocked takes in what the relays say now, and returns it by key.
func (b *balancer) noteLocked(a *arrangement, lists [][]relay.Replica, now time.Time) map[replicaKey]relay.Replica {
	listed := map[replicaKey]relay.Replica{}
	for _, list := range lists {
		for _, r := range list {
			if was, twice := listed[keyOf(r)]; twice {
				r.Draining = r.Draining && was.Draining // one relay alone takes nobody out
			}
			listed[keyOf(r)] = r
		}
	}
	b.listed = len(listed)
	for k := range b.givenUp {
		if _, is := listed[k]; !is {
			delete(b.givenUp, k)
		}
	}
	for k, s := range b.aside {
		if now.Before(s.until) {
			a.next = earlier(a.next, s.until)
		} else {
			delete(b.aside, k)
		}
	}
	for k, r := range b.chosen {
		said, is := listed[k]
		switch {
		case is:
			r.draining, r.unlisted = said.Draining, time.Time{}
		case r.unlisted.IsZero():
			r.unlisted = now
		}
	}
	return listed
}

// lookLocked looks which of the chosen replicas can be reached, and gives those up
// that cannot while others have no place.
func (b *balancer) lookLocked(a *arrangement, now time.Time) {
	for k, r := range b.chosen {
		h, _ := r.link.available()
		switch {
		case h != nil:
			if !r.proven {
				a.found = append(a.found, k)
			}
			r.proven, r.down = true, time.Time{}
			delete(b.givenUp, k)
		case r.down.IsZero():
			r.down, r.waited, a.missing = now, now, true
		case b.crowded && now.Sub(r.waited) >= giveUpAfter:
			b.givenUp[k], r.waited = now, now // it may keep its place: the others have had theirs
		}
	}
}

// endLocked says why a chosen replica is not to take new streams any more: "" if it
// is.
func (b *balancer) endLocked(a *arrangement, k replicaKey, wanted map[replicaKey]struct{}, listed map[replicaKey]relay.Replica, now time.Time) string {
	r := b.chosen[k]
	_, is := listed[k]
	_, aside := b.aside[k]
	_, stays := wanted[k]
	switch {
	case aside:
		return whyUnproven
	case stays:
		return ""
	case is && r.draining:
		return whyDraining
	case is:
		return whyDisplaced
	case r.down.IsZero():
		return "" // its own word counts for more than that of those who do not know it
	case !r.proven:
		return whyUnlisted
	}
	end := r.down.Add(unlistedFor)
	if r.unlisted.After(r.down) {
		end = r.unlisted.Add(unlistedFor)
	}
	if now.Before(end) {
		a.next = earlier(a.next, end)
		return ""
	}
	return whyUnlisted
}

// candidatesLocked returns those of a relay's list that a link may lead to: not those
// that are left alone, nor those that go away, which begin nothing any more.
func (b *balancer) candidatesLocked(list []relay.Replica) []relay.Replica {
	rest := make([]relay.Replica, 0, len(list))
	for _, r := range list {
		if _, aside := b.aside[keyOf(r)]; !aside && !r.Draining {
			rest = append(rest, r)
		}
	}
	return rest
}
