package channel

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// busy keeps data going both ways until the test's end, and wants each answer
// at once.
func busy(t *testing.T, x, y *Channel, pause time.Duration) (stop func()) {
	t.Helper()
	drainAll(t, y)
	drainAll(t, x)
	done, quit := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, c := range []*Channel{x, y} {
				if _, err := c.Write(make([]byte, 100)); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
			}
			select {
			case <-quit:
				return
			case <-time.After(pause):
			}
		}
	}()
	return func() { close(quit); <-done }
}

// TestRenew lives for hours: each path has new keys in its place after an hour,
// give or take a tenth, and the channel is never without one.
func TestRenew(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		stop := busy(t, x, y, time.Minute)
		last := time.Now()
		time.Sleep(12 * time.Hour)
		stop()
		if moved, lost := d.counts(); lost != 0 || moved < 10 || moved > 13 {
			t.Fatalf("%d losses and %d moves in 12 hours", lost, moved)
		}
		spread := map[time.Duration]bool{}
		for _, m := range d.moves() {
			between(t, "renewed", m.at.Sub(last), 54*time.Minute, 66*time.Minute+time.Second)
			spread[m.at.Sub(last).Round(time.Second)] = true
			last = m.at
			if m.Cause != Renewed || m.Down != 0 || m.Route != 0 {
				t.Errorf("moved %+v, want renewed over route 0, never down", m.Move)
			}
		}
		if len(spread) < 3 {
			t.Errorf("renewals come all after %v: nothing spreads them", spread)
		}
		closeChannels(t, x, y)
	})
}

// TestRenewBytes renews for what the keys have carried, once each time; when
// that does not work, it is not tried again at every ACK.
func TestRenewBytes(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{RenewBytes: 1 << 20}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		drainAll(t, y)
		drainAll(t, x)
		write := func(n int) {
			for range n / (64 << 10) {
				if _, err := x.Write(make([]byte, 64<<10)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Second)
		}
		for i := range 5 {
			write(1<<20 + 128<<10)
			if moved, lost := d.counts(); moved != i+1 || lost != 0 {
				t.Fatalf("%d moves and %d losses after %d MiB and a bit", moved, lost, i+1)
			}
			if m := d.moves()[i].Move; m.Cause != Renewed || m.Down != 0 {
				t.Errorf("moved %+v, want renewed", m)
			}
		}
		// The hour of the last keys is not that of these.
		time.Sleep(50 * time.Minute)
		write(1 << 20)
		time.Sleep(30 * time.Minute)
		if moved, _ := d.counts(); moved != 6 {
			t.Errorf("%d moves, want 6: the keys are half an hour old", moved)
		}
		var tries atomic.Int32
		l.refuseRoutes(func(int) error { tries.Add(1); return errNoRoute })
		write(8 << 20)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d attempts, want one and then a pause", n)
		}
		l.refuseRoutes(nil)
		time.Sleep(4 * time.Minute)
		if moved, _ := d.counts(); moved != 7 {
			t.Errorf("%d moves after the pause, want 7", moved)
		}
		closeChannels(t, x, y)
	})
}

// TestReturn comes back to the best route when it works again; when that does
// not hold, later and later, and soon again once it has held.
func TestReturn(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		bad := func(route int) error {
			if route == 0 {
				return errNoRoute
			}
			return nil
		}
		l.refuseRoutes(bad)
		x, y := l.open()
		stop := busy(t, x, y, time.Minute)
		time.Sleep(time.Minute)
		if r := x.State().Route; r != 1 {
			t.Fatalf("route %d, want 1", r)
		}
		lose := func() { // route 0 works for a second only
			time.Sleep(time.Second)
			l.refuseRoutes(bad)
			l.cutAll()
			synctest.Wait()
			waitUp(t, x, true)
			l.refuseRoutes(nil)
		}
		l.refuseRoutes(nil)
		waitRoute(t, x, 0, 31*time.Second)
		var waits []time.Duration
		for range 7 {
			lose()
			start := time.Now()
			waitRoute(t, x, 0, time.Hour)
			waits = append(waits, time.Since(start).Round(time.Second))
		}
		const m = time.Minute
		if want := []time.Duration{m, 2 * m, 4 * m, 8 * m, 10 * m, 10 * m, 10 * m}; !slices.Equal(waits, want) {
			t.Errorf("returned after %v, want %v", waits, want)
		}
		time.Sleep(time.Minute) // it holds
		lose()
		start := time.Now()
		waitRoute(t, x, 0, time.Hour)
		between(t, "returned", time.Since(start), 30*time.Second, 31*time.Second)
		stop()
		closeChannels(t, x, y) // nothing is told any more
		for _, m := range d.moves() {
			if m.Cause == Returned && (m.Down != 0 || m.Route != 0) || m.Cause == Lost && m.Route != 1 {
				t.Errorf("moved %+v", m.Move)
			}
		}
	})
}

func waitRoute(t *testing.T, c *Channel, want int, limit time.Duration) {
	t.Helper()
	for start := time.Now(); ; {
		_, changed := c.Up()
		if s := c.State(); s.Up && s.Route == want {
			return
		}
		select {
		case <-changed:
		case <-time.After(limit - time.Since(start)):
			t.Fatalf("route %d not taken within %s", want, limit)
		}
	}
}

// TestMoveLosesNothing moves again and again over real sockets: neither side is
// ever without a path.
func TestMoveLosesNothing(t *testing.T) {
	d := &diary{}
	l := newLab(t, 2, Settings{Trace: d.trace()}, Timing{}, Limits{})
	x, y := l.open()
	sums := make(chan [2][32]byte, 2)
	for _, way := range [][2]*Channel{{x, y}, {y, x}} {
		go func() { sums <- transfer(t, way[0], way[1], 16<<20) }()
	}
	const moves = 50
	for i := range moves {
		x.Move()
		d.awaitMoves(i + 1)
	}
	for range 2 {
		if s := <-sums; s[0] != s[1] {
			t.Error("what arrived is not what was sent")
		}
	}
	if moved, lost := d.counts(); moved != moves || lost != 0 {
		t.Errorf("%d moves and %d losses, want %d and none", moved, lost, moves)
	}
	for _, m := range d.moves() {
		if m.Cause != Asked || m.Down != 0 {
			t.Errorf("moved %+v, want asked and never down", m.Move)
		}
	}
	closeChannels(t, x, y)
}

// TestLostDuringMove ends the path while an attempt at another hangs: that one
// is given up soon, and the channel recovers.
func TestLostDuringMove(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		stop := busy(t, x, y, time.Minute)
		path, hangs := l.caller.Path, make(chan struct{}, 16)
		var hang atomic.Bool
		hang.Store(true)
		l.caller.Path = func(ctx context.Context, route int, i *Instance, address int) (net.Conn, error) {
			if hang.Load() {
				hangs <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return path(ctx, route, i, address)
		}
		x.Move()
		<-hangs
		hang.Store(false)
		start := time.Now()
		l.cutAll()
		synctest.Wait()
		waitUp(t, x, true)
		between(t, "another path", time.Since(start), 0, time.Second+50*time.Millisecond)
		stop()
		closeChannels(t, x, y)
	})
}

// TestMoveDuringRenewal asks for a move while a renewal waits: both are done.
func TestMoveDuringRenewal(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		drainAll(t, x)
		drainAll(t, y)
		signal(x.keeper.worn)
		x.Move()
		time.Sleep(time.Second)
		if _, lost := d.counts(); len(d.moves()) == 0 || lost != 0 || d.moves()[len(d.moves())-1].Route != 1 {
			t.Errorf("moved %+v with %d losses, want route 1 last", d.moves(), lost)
		}
		closeChannels(t, x, y)
	})
}

// TestDialFails tells why each route does not work, and leaves nothing.
func TestDialFails(t *testing.T) {
	inBubble(t, 2, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		l.refuseRoutes(noRoutes)
		if c, err := l.caller.Dial(t.Context(), 0); c != nil || !errors.Is(err, errNoRoute) {
			t.Errorf("Dial = %v, %v; want errNoRoute", c, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.caller.Path = func(ctx context.Context, _ int, _ *Instance, _ int) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if c, err := l.caller.Dial(ctx, 0); c != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, %v; want its context's end", c, err)
		}
	})
}

// TestFlapping has every path end as soon as it is taken: the attempts do not
// follow each other without a pause.
func TestFlapping(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		drainAll(t, x)
		drainAll(t, y)
		time.Sleep(time.Second) // the first path has held
		set := l.caller.Path
		var mu sync.Mutex
		var tries []time.Duration
		start := time.Now()
		l.caller.Path = func(ctx context.Context, route int, i *Instance, address int) (net.Conn, error) {
			mu.Lock()
			tries = append(tries, time.Since(start))
			endless := len(tries) > 10_000
			mu.Unlock()
			if endless {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			nc, err := set(ctx, route, i, address)
			if err == nil && time.Since(start) < time.Minute {
				go func(up <-chan struct{}) { <-up; _ = nc.Close() }(upOf(x))
			}
			return nc, err
		}
		l.cutAll()
		time.Sleep(time.Minute)
		mu.Lock()
		if len(tries) > 120 || len(tries) < 40 || tries[0] > time.Millisecond {
			t.Errorf("%d attempts in a minute, the first after %s", len(tries), tries[0])
		}
		mu.Unlock()
		time.Sleep(10 * time.Second)
		if up, _ := x.Up(); !up {
			t.Error("no path once one works")
		}
		closeChannels(t, x, y)
	})
}

// upOf returns what is closed when that changes whether c has a path.
func upOf(c *Channel) <-chan struct{} {
	_, changed := c.Up()
	return changed
}
