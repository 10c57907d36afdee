package channel

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A diary is a Trace that writes down when what has happened, at the initiator
// only where its funcs say so.
type diary struct {
	mu    sync.Mutex
	more  chan struct{} // closed, and made anew, with each entry; nil while nobody waits
	lost  []entry
	moved []entry // at the initiator
}

type entry struct {
	at   time.Time
	side int // 0 the initiator, 1 the responder
	err  error
	Move
}

func (d *diary) trace() *Trace {
	side := func(c *Channel) int {
		if c.keeper == nil {
			return 1
		}
		return 0
	}
	return &Trace{
		Lost: func(c *Channel, _ int, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.lost = append(d.lost, entry{at: time.Now(), side: side(c), err: err})
			d.tellLocked()
		},
		Moved: func(c *Channel, m Move) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if c.keeper != nil {
				d.moved = append(d.moved, entry{at: time.Now(), Move: m})
				d.tellLocked()
			}
		},
	}
}

func (d *diary) tellLocked() {
	if d.more != nil {
		close(d.more)
		d.more = nil
	}
}

// awaitMoves waits until there were so many moves.
func (d *diary) awaitMoves(n int) {
	for {
		d.mu.Lock()
		if len(d.moved) >= n {
			d.mu.Unlock()
			return
		}
		if d.more == nil {
			d.more = make(chan struct{})
		}
		more := d.more
		d.mu.Unlock()
		<-more
	}
}

// moves returns what has moved so far.
func (d *diary) moves() []entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.moved)
}

// counts returns how many moves and losses there were.
func (d *diary) counts() (moved, lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.moved), len(d.lost)
}

// inBubble runs f with a lab of paths in memory, on a clock of its own.
func inBubble(t *testing.T, routes int, set Settings, timing Timing, f func(t *testing.T, l *lab, d *diary)) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		set.Trace = d.trace()
		f(t, newLabOn(t, memPair, routes, set, timing, Limits{}), d)
	})
}

// readAll reads c until its end, in the background.
func drainAll(t *testing.T, c *Channel) <-chan error {
	t.Helper()
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, onlyReader{c})
		end <- err
	}()
	return end
}

type onlyReader struct{ io.Reader }

func between(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s after %s, want %s to %s", what, got, low, high)
	}
}

// TestGraceTimes leaves both sides without a path: attempts come at once, soon,
// and then ever later; each side gives up after the grace time.
func TestGraceTimes(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		ends := []<-chan error{drainAll(t, x), drainAll(t, y)}
		time.Sleep(time.Second) // the path has held
		var tries []time.Duration
		start := time.Now()
		l.refuseRoutes(func(int) error {
			tries = append(tries, time.Since(start))
			return errNoRoute
		})
		l.cutAll()
		for i, end := range ends {
			var lost *LostError
			if err := <-end; !errors.As(err, &lost) || lost.Code != code.Timeout {
				t.Errorf("side %d ends with %v, want a time-out", i, err)
			}
			between(t, "the end", time.Since(start), time.Minute, time.Minute+time.Millisecond)
		}
		if len(tries) < 20 || tries[0] > time.Millisecond || tries[1] > 50*time.Millisecond {
			t.Fatalf("attempts at %v, want the first at once and the second within 50 ms", tries)
		}
		longest := time.Duration(0)
		for i := 1; i < len(tries); i++ {
			longest = max(longest, tries[i]-tries[i-1])
		}
		between(t, "the longest pause is over", longest, time.Second, 3*time.Second/2)
	})
}

// TestSilence drops what one side says, or both: who does not hear any more
// notices within two intervals, and the channel goes on over another path.
func TestSilence(t *testing.T) {
	for _, interval := range []time.Duration{5 * time.Second, time.Second} {
		for name, ends := range map[string][2]bool{"from the initiator": {true, false}, "from the responder": {false, true}, "both": {true, true}} {
			t.Run(interval.String()+" "+name, func(t *testing.T) {
				inBubble(t, 1, Settings{Keepalive: interval}, Timing{}, func(t *testing.T, l *lab, d *diary) {
					x, y := l.open()
					drainAll(t, x)
					drainAll(t, y)
					time.Sleep(10*time.Minute + interval/3) // an idle channel is kept
					if _, lost := d.counts(); lost != 0 {
						t.Fatalf("lost while idle: %v", d.lost[0].err)
					}
					start := time.Now()
					for i, nc := range []net.Conn{l.paths[0].a, l.paths[0].b} {
						if ends[i] {
							nc.(*memConn).hole()
						}
					}
					time.Sleep(2*interval + time.Second)
					if moved, lost := d.counts(); moved != 1 || lost == 0 {
						t.Fatalf("%d losses and %d moves, want another path", lost, moved)
					}
					first := d.lost[0]
					between(t, "noticed", first.at.Sub(start), interval/2, 2*interval)
					// Where only the responder is deaf, its reset tells the initiator.
					dead := func(e entry) bool { return e.side == 0 && errors.Is(e.err, ErrDead) }
					if ends[1] && !slices.ContainsFunc(d.lost, dead) {
						t.Errorf("lost for %v, want ErrDead", d.lost)
					}
					between(t, "another path", d.moved[0].at.Sub(first.at), 0, 50*time.Millisecond)
					closeChannels(t, x, y)
				})
			})
		}
	}
}

// TestAckTime reads less than what makes an ACK at once: it comes 100 ms later.
func TestAckTime(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		drainAll(t, y)
		synctest.Wait()
		if _, err := x.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		for x.State().Kept > 0 && time.Since(start) < time.Second {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		between(t, "acknowledged", time.Since(start), 50*time.Millisecond, 101*time.Millisecond)
		closeChannels(t, x, y)
	})
}

// TestLinger closes without a path: with something unsent for the whole time,
// else for a tenth of it.
func TestLinger(t *testing.T) {
	for _, tt := range []struct {
		name   string
		unsent int
		want   time.Duration
	}{{"unsent", 1, 10 * time.Second}, {"nothing unsent", 0, time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
				x, y := l.open()
				for _, c := range []*Channel{x, y} {
					drainAll(t, c)
				}
				l.refuseRoutes(noRoutes)
				l.cutAll()
				waitUp(t, x, false)
				waitUp(t, y, false)
				for _, c := range []*Channel{x, y} {
					_, _ = c.Write(make([]byte, tt.unsent))
					start := time.Now()
					if err := c.Close(); err == nil {
						t.Error("Close = nil, though nobody has heard it")
					}
					between(t, "closed", time.Since(start), tt.want, tt.want)
					if err := c.Err(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Err = %v, want net.ErrClosed", err)
					}
				}
			})
		})
	}
}

// TestClosePeerStays closes while the peer's program does not: after a second
// that is enough.
func TestClosePeerStays(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		end := drainAll(t, y)
		synctest.Wait()
		start := time.Now()
		if err := x.Close(); err != nil {
			t.Errorf("Close = %v, want nil: the peer has everything", err)
		}
		between(t, "closed", time.Since(start), partTime, partTime)
		if err := <-end; err != nil {
			t.Errorf("the peer reads %v, want a clean end", err)
		}
		if err := y.Close(); err != nil {
			t.Errorf("Close of the peer = %v, want nil: there is nobody to tell", err)
		}
	})
}

// TestCloseIsPrompt closes both sides while both read.
func TestCloseIsPrompt(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		for i := range 2 {
			x, y := l.open()
			if i == 1 {
				x, y = y, x
			}
			drainAll(t, x)
			go func() {
				_, _ = io.Copy(io.Discard, onlyReader{y})
				_ = y.Close()
			}()
			synctest.Wait()
			start := time.Now()
			if err := x.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			between(t, "closed", time.Since(start), 0, 0)
		}
	})
}

// TestLostClose loses the CLOSE, or what acknowledges it, with its path.
func TestLostClose(t *testing.T) {
	for name, end := range map[string]func(*labPath) *memConn{
		"CLOSE": func(p *labPath) *memConn { return p.a.(*memConn) },
		"ACK":   func(p *labPath) *memConn { return p.b.(*memConn) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
				x, y := l.open()
				read := drainAll(t, y)
				synctest.Wait()
				end(l.paths[0]).hole()
				closed := make(chan error, 1)
				go func() { closed <- x.Close() }()
				synctest.Wait()
				l.cutAll()
				if err := <-read; err != nil {
					t.Errorf("the peer reads %v, want a clean end", err)
				}
				if err := <-closed; err != nil {
					t.Errorf("Close = %v, want nil", err)
				}
				if err := y.Close(); err != nil {
					t.Errorf("Close of the peer = %v, want nil", err)
				}
			})
		})
	}
}

// TestStagger opens over routes that hang: the next is tried beside them.
func TestStagger(t *testing.T) {
	inBubble(t, 3, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		start := time.Now()
		tries := map[int]time.Duration{}
		path := l.caller.Path
		l.caller.Path = func(ctx context.Context, route int, i *Instance, address int) (net.Conn, error) {
			l.mu.Lock()
			tries[route] = time.Since(start)
			l.mu.Unlock()
			if route < 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return path(ctx, route, i, address)
		}
		x, y := l.open()
		for route, at := range tries {
			between(t, "a route was tried", at, time.Duration(route)*time.Second, time.Duration(route)*time.Second)
		}
		if len(tries) != 3 || x.State().Route != 2 {
			t.Errorf("tried %v, got route %d", tries, x.State().Route)
		}
		closeChannels(t, x, y)
	})
}
