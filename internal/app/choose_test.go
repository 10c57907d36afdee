package app

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
)

// numbered returns the replica of that number, which is never 0.
func numbered(n int) relay.Replica {
	var r relay.Replica
	binary.BigEndian.PutUint32(r.Outlet[:], uint32(n+1))
	binary.BigEndian.PutUint32(r.Instance[:], uint32(n+1))
	return r
}

func replicas(from, n int) (list []relay.Replica) {
	for i := range n {
		list = append(list, numbered(from+i))
	}
	return list
}

func instanceOf(n int) (i channel.Instance) {
	binary.BigEndian.PutUint32(i[:], uint32(n))
	return i
}

// Many inlets that each use a part of many replicas use all of them about equally,
// and one that goes moves only those who had it.
func TestRankedSpreads(t *testing.T) {
	const inlets, n = 2000, 40
	list := replicas(0, n)
	uses, moved := map[replicaKey]int{}, 0
	gone := keyOf(list[7])
	rest := slices.Delete(slices.Clone(list), 7, 8)
	for i := range inlets {
		chosen := ranked(list, instanceOf(i), nil)[:maxReplicas]
		for _, k := range chosen {
			uses[k]++
		}
		after := ranked(rest, instanceOf(i), nil)[:maxReplicas]
		if slices.Contains(chosen, gone) {
			moved++
			chosen = slices.DeleteFunc(chosen, func(k replicaKey) bool { return k == gone })
			after = after[:maxReplicas-1]
		}
		if !slices.Equal(chosen, after) {
			t.Fatalf("inlet %d: one that went has moved others", i)
		}
	}
	for k, got := range uses {
		// 400 each; six standard deviations are 107.
		if want := inlets * maxReplicas / n; got < want-110 || got > want+110 {
			t.Errorf("replica %v is used by %d inlets, want about %d", k.outlet, got, want)
		}
	}
	if moved != uses[gone] {
		t.Errorf("%d inlets were moved, %d had it", moved, uses[gone])
	}
}

// What was given up comes last, the longest ago first.
func TestRankedGivenUp(t *testing.T) {
	list := replicas(0, 6)
	all := ranked(list, instanceOf(1), nil)
	now := time.Now()
	got := ranked(list, instanceOf(1), map[replicaKey]time.Time{all[0]: now, all[2]: now.Add(-time.Second)})
	want := []replicaKey{all[1], all[3], all[4], all[5], all[2], all[0]}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Whatever relays list and whatever works: the bounds hold, nothing is chosen twice or
// out of nothing, what works is not left out for what does not, and no list gets less
// than its share of the attempts.
func TestChooseRapid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lists [][]replicaKey
		works := map[replicaKey]bool{}
		working := 0
		for range rapid.IntRange(1, 4).Draw(t, "lists") {
			var list []replicaKey
			for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, 60), 0, 40, rapid.ID[int]).Draw(t, "list") {
				k := keyOf(numbered(n))
				if _, known := works[k]; !known {
					works[k] = rapid.Bool().Draw(t, "works")
					if works[k] {
						working++
					}
				}
				list = append(list, k)
			}
			lists = append(lists, list)
		}
		given := make([][]replicaKey, len(lists))
		for i, l := range lists {
			given[i] = slices.Clone(l)
		}
		order := interleaved(given)
		if len(order) != len(works) {
			t.Fatalf("%d in order, %d listed", len(order), len(works))
		}
		chosen, crowded := choose(order, func(k replicaKey) bool { return works[k] })
		seen := map[replicaKey]bool{}
		used, probes := 0, 0
		for _, k := range chosen {
			if _, listed := works[k]; !listed || seen[k] {
				t.Fatalf("%v is chosen twice, or was not listed", k)
			}
			seen[k] = true
			if works[k] {
				used++
			} else {
				probes++
			}
		}
		if used != min(working, maxReplicas) || probes > maxProbes {
			t.Fatalf("%d used of %d that work, %d probes", used, working, probes)
		}
		if crowded != (len(chosen) < len(works)) {
			t.Fatalf("crowded %v with %d of %d chosen", crowded, len(chosen), len(works))
		}
		// Of nothing that works: the first of each list is among those that are tried.
		probed, _ := choose(order, func(replicaKey) bool { return false })
		for _, l := range lists {
			share := maxProbes / len(lists)
			for _, k := range l[:min(share, len(l))] {
				if !slices.Contains(probed, k) {
					t.Fatalf("%v is not tried, which is among the first %d of its list", k, share)
				}
			}
		}
	})
}

// A key is the whole name: one identity's processes are different replicas.
func TestReplicaKeys(t *testing.T) {
	a := relay.Replica{Outlet: identity.Identifier{1}, Instance: channel.Instance{1}}
	b := relay.Replica{Outlet: identity.Identifier{1}, Instance: channel.Instance{2}}
	if keyOf(a) == keyOf(b) || keyOf(a).weight(channel.Instance{}) == keyOf(b).weight(channel.Instance{}) {
		t.Error("two instances of an outlet are one replica")
	}
	a.Draining = true
	if keyOf(a) != keyOf(relay.Replica{Outlet: a.Outlet, Instance: a.Instance}) {
		t.Error("a replica that drains is another one")
	}
}
