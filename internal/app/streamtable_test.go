package app

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A carrying stands for a stream: what it has carried grows.
type carrying struct{ sent, received atomic.Int64 }

func (c *carrying) Progress() tunnel.Progress {
	return tunnel.Progress{Sent: c.sent.Load(), Received: c.received.Load(), Active: time.Unix(1, 0)}
}

// enter begins a stream on the table that a carrying stands for.
func enter(t *streamTable, c *serviceCount) (*liveStream, *carrying) {
	s, by := &liveStream{service: c.name, since: time.Now()}, &carrying{}
	s.carried = by
	t.begin(s, c)
	return s, by
}

// While streams begin, carry and end, no number ever becomes less, nothing is counted
// twice on the way, and in the end everything is counted once.
func TestTableNeverGoesBack(t *testing.T) {
	const workers, rounds = 8, 400
	table := newStreamTable()
	services := []*serviceCount{table.service("a", ""), table.service("b", ""), table.service("a", "elsewhere")}
	var carriedAll, openedAll atomic.Int64 // raised before anything is counted
	var working sync.WaitGroup
	for w := range workers {
		working.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			var live []*liveStream
			var bys []*carrying
			for range rounds {
				openedAll.Add(1)
				s, by := enter(table, services[random.IntN(len(services))])
				live, bys = append(live, s), append(bys, by)
				for _, by := range bys {
					n := random.Int64N(1000)
					carriedAll.Add(2 * n)
					by.sent.Add(n)
					by.received.Add(n)
				}
				if len(live) > 10 {
					i := random.IntN(len(live))
					table.end(live[i])
					live, bys = slices.Delete(live, i, i+1), slices.Delete(bys, i, i+1)
				}
			}
			for _, s := range live {
				table.end(s)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		working.Wait()
	}()
	last := map[*serviceCount]streamSums{}
	for looking := true; looking; {
		select {
		case <-done:
			looking = false
		default:
		}
		now := table.sums()
		sum, most, opened := total(now), carriedAll.Load(), openedAll.Load()
		if sum.sent+sum.received > most || sum.opened > opened || sum.active() < 0 || sum.active() > workers*12 {
			t.Fatalf("%+v, of %d bytes and %d streams", sum, most, opened)
		}
		for c, s := range now {
			was := last[c]
			if s.sent < was.sent || s.received < was.received || s.opened < was.opened || s.ended < was.ended {
				t.Fatalf("%s went from %+v to %+v", c.name, was, s)
			}
		}
		last = now
	}
	sum := total(last)
	if sum.active() != 0 || sum.opened != workers*rounds || sum.sent+sum.received != carriedAll.Load() {
		t.Errorf("in the end %+v, want %d streams and %d bytes, and none active", sum, workers*rounds, carriedAll.Load())
	}
	if left := table.newest(maxEntries); len(left) != 0 {
		t.Errorf("%d streams are left", len(left))
	}
}

// The table against one that is a list: whatever begins and ends in whatever order, the
// newest are the last that began and live.
func TestTableIsAList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table := newStreamTable()
		c := table.service("a", "")
		var model []*liveStream // oldest first
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			if len(model) > 0 && rapid.Bool().Draw(rt, "end") {
				i := rapid.IntRange(0, len(model)-1).Draw(rt, "which")
				table.end(model[i])
				model = slices.Delete(model, i, i+1)
				continue
			}
			s, _ := enter(table, c)
			model = append(model, s)
		}
		most := rapid.IntRange(0, 100).Draw(rt, "most")
		var want []uint64
		for _, s := range slices.Backward(model) {
			if len(want) < most {
				want = append(want, s.number)
			}
		}
		var got []uint64
		for _, s := range table.newest(most) {
			got = append(got, s.number)
		}
		if !slices.Equal(got, want) {
			rt.Errorf("the newest %d: %v, want %v", most, got, want)
		}
		if sums := total(table.sums()); sums.active() != int64(len(model)) {
			rt.Errorf("%d active, want %d", sums.active(), len(model))
		}
	})
}

// A stream that gets its number first, and its place later, stands where its number says.
func TestTableOrder(t *testing.T) {
	table := newStreamTable()
	c := table.service("a", "")
	var all []*liveStream
	for range 3 {
		s := &liveStream{}
		table.begin(s, c)
		all = append(all, s)
		table.last.Add(tableShards - 1) // the next one is in the same shard
	}
	first := all[0]
	table.end(first)
	table.last.Store(0)
	table.begin(first, c)
	var got []uint64
	for _, s := range table.newest(10) {
		got = append(got, s.number)
	}
	if want := []uint64{2*tableShards + 1, tableShards + 1, 1}; !slices.Equal(got, want) {
		t.Errorf("streams %v, want %v", got, want)
	}
	for _, s := range []*liveStream{all[1], all[0], all[2]} {
		table.end(s)
	}
	if left := table.newest(10); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}

// The same name at the same place is one count, however often it is asked for: a
// service that is offered again goes on with its numbers.
func TestTableServices(t *testing.T) {
	table := newStreamTable()
	a := table.service("a", "x")
	if table.service("a", "x") != a || table.service("a", "y") == a || table.service("b", "x") == a {
		t.Error("services are not told apart by name and place")
	}
}

// Whatever places a service has had, what is kept of them is bounded by those that it
// has: their numbers stay with its name, and with the totals when that is gone.
func TestTableForgetsPlaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table := newStreamTable()
		names := []string{"a", "b"}
		held := map[string][]*serviceCount{} // by name, one for each hold
		carried := map[string]int64{}        // by name, since it has been shown
		var all, forgotten int64
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			if holds := held[name]; len(holds) > 0 && rapid.Bool().Draw(rt, "release") {
				i := rapid.IntRange(0, len(holds)-1).Draw(rt, "which")
				c := holds[i]
				held[name] = slices.Delete(holds, i, i+1)
				last := table.release(c)
				if want := len(held[name]) == 0; last != want {
					rt.Fatalf("release of %q says %v, want %v", name, last, want)
				}
				if last {
					forgotten += carried[name]
					carried[name] = 0
				}
			} else {
				c := table.service(name, rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(rt, "place"))
				if !table.retain(c) || table.release(c) {
					rt.Fatal("what is held cannot be retained and released")
				}
				held[name] = append(held[name], c)
				s, by := enter(table, c)
				n := rapid.Int64Range(0, 100).Draw(rt, "bytes")
				by.sent.Store(n)
				table.end(s)
				all += n
				carried[name] += n
			}
			sums, byName := table.sums(), map[string]int64{}
			for c, s := range sums {
				if c != &table.gone {
					byName[c.name] += s.sent
				}
			}
			for _, name := range names {
				if byName[name] != carried[name] {
					rt.Fatalf("%q has carried %d bytes, want %d", name, byName[name], carried[name])
				}
			}
			if got := sums[&table.gone].sent; got != forgotten || total(sums).sent != all {
				rt.Fatalf("%d bytes of services that are gone and %d in all, want %d and %d", got, total(sums).sent, forgotten, all)
			}
		}
		places := map[*serviceCount]bool{}
		for _, holds := range held {
			for _, c := range holds {
				places[c] = true
			}
		}
		if most := 1 + len(places) + len(names); len(table.counted) > most || len(table.byKey) != len(places) {
			rt.Errorf("%d counts are kept, %d by key, of %d places that are held", len(table.counted), len(table.byKey), len(places))
		}
	})
}

// What was released for the last time is not retained again.
func TestTableRetainsOnlyWhatIsHeld(t *testing.T) {
	table := newStreamTable()
	c := table.service("a", "")
	table.release(c)
	if table.retain(c) {
		t.Error("a count that nobody holds was retained")
	}
	if again := table.service("a", ""); again == c || !table.retain(again) {
		t.Error("the service's next count is the former one, or cannot be retained")
	}
}

func BenchmarkStreamTable(b *testing.B) {
	for _, live := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			table := newStreamTable()
			c := table.service("a", "")
			for range live {
				enter(table, c)
			}
			by := &carrying{}
			b.Run("stream", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						s := &liveStream{carried: by}
						table.begin(s, c)
						table.end(s)
					}
				})
			})
			b.Run("sums", func(b *testing.B) {
				for b.Loop() {
					table.sums()
				}
			})
			b.Run("newest", func(b *testing.B) {
				for b.Loop() {
					table.newest(100)
				}
			})
		})
	}
}
