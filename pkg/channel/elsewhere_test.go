package channel

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// What is behind an address of a route.
type place string

const (
	own       place = "the process that holds the channel"
	elsewhere place = "another process of its identity"
	none      place = "nobody"
)

// A map of what is behind each route's addresses, which can be exchanged.
type places struct {
	l     *lab
	other *Local
	table *Table
	now   [][]place // guarded by l.mu
}

// newPlaces makes the lab's routes lead where places says, in turn.
func newPlaces(l *lab, now ...[]place) *places {
	other, err := NewLocal(l.local.id)
	if err != nil {
		l.t.Fatal(err)
	}
	p := &places{l: l, other: other, table: NewTable(l.table.set, l.table.limits), now: now}
	own := l.caller.Path
	l.caller.Path = func(ctx context.Context, route int, i *Instance, address int) (net.Conn, error) {
		if i == nil {
			return own(ctx, route, i, address)
		}
		switch at := p.at(route, address); at {
		case "":
			return nil, ErrNoAddress
		case none:
			return nil, errNoRoute
		case elsewhere:
			a, b := l.pair(l.t)
			l.serving.Go(func() { l.serve(b, p.other, p.table, nil) })
			return a, nil
		default:
			return own(ctx, route, i, 0)
		}
	}
	return p
}

func (p *places) at(route, address int) place {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if address >= len(p.now[route]) {
		return ""
	}
	return p.now[route][address]
}

func (p *places) set(now ...[]place) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.now = now
}

// TestElsewhere ends the path of a channel that other processes of the peer's
// identity stand beside: only where they are all there is, the channel's own
// process is no more.
func TestElsewhere(t *testing.T) {
	endless := make([]place, 10_000)
	for i := range endless {
		endless[i] = elsewhere
	}
	tests := []struct {
		name string
		now  [][]place
		gone bool
		up   bool
	}{
		{"own", [][]place{{own}}, false, true},
		{"own behind another", [][]place{{elsewhere, own}}, false, true},
		{"own before another", [][]place{{own, elsewhere}}, false, true},
		{"own behind one that is down", [][]place{{none, own}}, false, true},
		{"own behind both", [][]place{{none, elsewhere, own}}, false, true},
		{"another alone", [][]place{{elsewhere}}, true, false},
		{"others alone", [][]place{{elsewhere, elsewhere, elsewhere}}, true, false},
		{"others and one that is down", [][]place{{elsewhere, none}}, false, false},
		{"one that is down, and others", [][]place{{none, elsewhere}}, false, false},
		{"nobody", [][]place{{none, none}}, false, false},
		{"no address", [][]place{{}}, false, false},
		{"addresses without an end", [][]place{endless}, false, false},
		{"others over both routes", [][]place{{elsewhere}, {elsewhere, elsewhere}}, true, false},
		{"others over one route, nobody over the other", [][]place{{elsewhere}, {none}}, false, false},
		{"others over one route, own over the other", [][]place{{elsewhere}, {elsewhere, own}}, false, true},
		{"others over one route, no address over the other", [][]place{{}, {elsewhere}}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, len(tt.now), Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
				p := newPlaces(l, tt.now...)
				x, y := l.open()
				drainAll(t, x)
				drainAll(t, y)
				time.Sleep(time.Second)
				l.cutAll()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if up, _ := x.Up(); up != tt.up || isOver(x, code.Gone) != tt.gone {
					t.Fatalf("up %v, %v; want up %v, gone %v", up, x.Err(), tt.up, tt.gone)
				}
				if tt.gone {
					return
				}
				// The others stay and nobody else: as long as there is no word of the
				// channel's own process, it may come back.
				way := make([][]place, len(tt.now))
				for i := range way {
					way[i] = []place{elsewhere, own}
				}
				p.set(way...)
				waitUp(t, x, true)
				closeChannels(t, x, y)
			})
		})
	}
}

// TestRenewElsewhere renews keys, and moves, past another process of the peer's
// identity that stands at an earlier address.
func TestRenewElsewhere(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		newPlaces(l, []place{elsewhere, own})
		var failed []error
		l.caller.Failed = func(_ int, err error) { failed = append(failed, err) }
		x, y := l.open()
		drainAll(t, x)
		drainAll(t, y)
		time.Sleep(3 * time.Hour)
		x.Move()
		time.Sleep(time.Second)
		synctest.Wait()
		if moved, lost := d.counts(); moved < 3 || lost != 0 {
			t.Errorf("%d moves and %d losses in three hours, want at least 3 and none", moved, lost)
		}
		for _, err := range failed {
			t.Errorf("an attempt has failed: %v", err)
		}
		closeChannels(t, x, y)
	})
}

// A peer's last word is one, whatever else an attempt has met.
func TestVerdictBehindAnother(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		newPlaces(l, []place{elsewhere, none, own, own})
		x, y := l.open()
		drainAll(t, x)
		drainAll(t, y)
		time.Sleep(time.Second)
		y.Fail(code.Internal, errors.New("gives up"))
		time.Sleep(time.Second)
		synctest.Wait()
		if !isOver(x, code.UnknownChannel) {
			t.Errorf("the channel: %v, want its end as unknown", x.Err())
		}
	})
}
