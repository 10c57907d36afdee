package channel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/line"
	"github.com/culvert-net/culvert/pkg/code"
)

// kernelHas is what stands for the socket buffers at both sides of a line.
const kernelHas = 64 << 10

// onLine runs f in a bubble, beside other tests of lines, with a channel whose paths go by one line.
func onLine(t *testing.T, cfg line.Config, f func(t *testing.T, s *slow)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slow{t: t, Line: line.New(cfg), cfg: cfg}
		s.lab = newLabOn(t, s.pair, 1, Settings{}, Timing{}, Limits{})
		s.x, s.y = s.lab.open()
		f(t, s)
		s.x.Fail(code.Internal, errEnd)
		s.y.Fail(code.Internal, errEnd)
		s.lab.cutAll()
		s.Line.Close()
		s.joins.Wait()
	})
}

var errEnd = errors.New("end of the test")

// A slow is a channel over a slow line.
type slow struct {
	*line.Line
	t     *testing.T
	cfg   line.Config
	lab   *lab
	x, y  *Channel // x at the near end
	joins sync.WaitGroup
}

func (s *slow) pair(testing.TB) (net.Conn, net.Conn) {
	a, in := memPairOf(kernelHas)
	out, b := memPairOf(kernelHas)
	s.joins.Go(func() { s.Join(in, out) })
	return a, b
}

// bulk sends from one end to the other without an end, and counts what arrives.
func bulk(from io.Writer, to io.Reader) *atomic.Int64 {
	go func() { _, _ = io.Copy(onlyWriter{from}, zeros{}) }()
	return count(to)
}

// count reads without an end, and counts what it reads.
func count(to io.Reader) *atomic.Int64 {
	var n atomic.Int64
	go func() {
		buf := make([]byte, 64<<10)
		for {
			k, err := to.Read(buf)
			n.Add(int64(k))
			if err != nil {
				return
			}
		}
	}()
	return &n
}

// share waits for d and returns how much of the line n has had in it.
func (s *slow) share(n *atomic.Int64, d time.Duration) float64 {
	before := n.Load()
	time.Sleep(d)
	return float64(n.Load()-before) * 8 / float64(s.cfg.Rate) / d.Seconds()
}

// flightOf returns what c measures.
func flightOf(c *Channel) flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flight
}

// trips looks for d at how long c's probes take to and fro, which wait behind
// all that is on the path as any frame would, and returns the longest in a
// hundred.
func (s *slow) trips(c *Channel, d time.Duration) time.Duration {
	var all []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		f := flightOf(c)
		all = append(all, f.deliveredAt-f.lastSent)
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

func (s *slow) rtt() time.Duration { return 2 * s.cfg.Delay }

// lineOf returns a line with a buffer of twice its bandwidth-delay product.
func lineOf(rate int64, rtt time.Duration) line.Config {
	return line.Config{Rate: rate, Delay: rtt / 2, Buffer: int(2 * float64(rate) / 8 * rtt.Seconds())}
}

// TestFlightSteady sends one way: the line is used, and little waits in it.
func TestFlightSteady(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   line.Config
		share float64
		trip  float64 // in round trips
	}{
		{"200 Mbit/s, 20 ms", lineOf(200e6, 20*time.Millisecond), 0.97, 1.35},
		{"200 Mbit/s, 100 ms", lineOf(200e6, 100*time.Millisecond), 0.97, 1.2},
		{"20 Mbit/s, 40 ms", lineOf(20e6, 40*time.Millisecond), 0.97, 1.25},
		{"1 Mbit/s, 50 ms", line.Config{Rate: 1e6, Delay: 25 * time.Millisecond, Buffer: 64 << 10}, 0.95, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onLine(t, tc.cfg, func(t *testing.T, s *slow) {
				n := bulk(s.x, s.y)
				count(s.x)
				time.Sleep(5 * time.Second)
				start := time.Now()
				before := n.Load()
				trip := s.trips(s.x, 12*time.Second)
				got := float64(n.Load()-before) * 8 / float64(s.cfg.Rate) / time.Since(start).Seconds()
				t.Logf("%.3f of the line, %.2f round trips", got, trip.Seconds()/s.rtt().Seconds())
				if got < tc.share {
					t.Errorf("%.3f of the line, want %.2f", got, tc.share)
				}
				if most := time.Duration(tc.trip * float64(s.rtt())); trip > most {
					t.Errorf("a frame takes %s to and fro, want %s", trip, most)
				}
			})
		})
	}
}

// within checks how much of the line n has in the next d, and how long frames of
// c's take beside it.
func (s *slow) within(c *Channel, n *atomic.Int64, d time.Duration, share, trip float64) {
	s.t.Helper()
	before := n.Load()
	start := time.Now()
	got := s.trips(c, d).Seconds() / s.rtt().Seconds()
	has := float64(n.Load()-before) * 8 / float64(s.cfg.Rate) / time.Since(start).Seconds()
	s.t.Logf("%.3f of the line, %.2f round trips", has, got)
	if has < share {
		s.t.Errorf("%.3f of the line, want %.2f", has, share)
	}
	if got > trip {
		s.t.Errorf("a frame takes %.2f round trips, want %.2f", got, trip)
	}
}

// change gives the line other properties.
func (s *slow) change(cfg line.Config) {
	s.cfg = cfg
	s.Set(cfg)
}

// TestFlightBothWays fills both directions: the PONGs of one come behind the
// data of the other.
func TestFlightBothWays(t *testing.T) {
	onLine(t, lineOf(200e6, 20*time.Millisecond), func(t *testing.T, s *slow) {
		there, back := bulk(s.x, s.y), bulk(s.y, s.x)
		time.Sleep(5 * time.Second)
		var both sync.WaitGroup
		both.Go(func() { s.within(s.x, there, 12*time.Second, 0.97, 1.5) })
		both.Go(func() { s.within(s.y, back, 12*time.Second, 0.97, 1.5) })
		both.Wait()
	})
}

// TestFlightRateChanges makes the line ten times faster and ten times slower.
func TestFlightRateChanges(t *testing.T) {
	const rtt = 40 * time.Millisecond
	slower, faster := lineOf(10e6, rtt), lineOf(100e6, rtt)
	onLine(t, slower, func(t *testing.T, s *slow) {
		n := bulk(s.x, s.y)
		count(s.x)
		time.Sleep(3 * time.Second)
		s.change(faster)
		time.Sleep(time.Second)
		s.within(s.x, n, 5*time.Second, 0.97, 1.3)
		s.change(slower)
		time.Sleep(5 * time.Second) // what is under way then takes ten times as long
		s.within(s.x, n, 5*time.Second, 0.95, 1.6)
	})
}

// TestFlightRoundTripChanges makes the way longer and shorter again.
func TestFlightRoundTripChanges(t *testing.T) {
	const rate = 100e6
	onLine(t, lineOf(rate, 20*time.Millisecond), func(t *testing.T, s *slow) {
		n := bulk(s.x, s.y)
		count(s.x)
		time.Sleep(3 * time.Second)
		longer := lineOf(rate, 80*time.Millisecond)
		s.change(longer)
		time.Sleep(20 * time.Second)
		s.within(s.x, n, 8*time.Second, 0.9, 1.3)
		s.change(lineOf(rate, 20*time.Millisecond))
		time.Sleep(3 * time.Second)
		s.within(s.x, n, 8*time.Second, 0.95, 1.6)
	})
}

// TestFlightBursts sends less than the line carries, in bursts: neither the
// pauses nor the little that comes lower what is known of the line, and the bulk
// that follows has it at once.
func TestFlightBursts(t *testing.T) {
	onLine(t, lineOf(100e6, 20*time.Millisecond), func(t *testing.T, s *slow) {
		n := count(s.y)
		count(s.x)
		if _, err := s.x.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for range 100 {
			if _, err := s.x.Write(make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if f := flightOf(s.x); f.rate*8 < 0.9*float64(s.cfg.Rate) {
			t.Errorf("the rate is taken for %.1f Mbit/s after bursts of little", f.rate*8/1e6)
		}
		go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
		time.Sleep(50 * time.Millisecond)
		s.within(s.x, n, time.Second, 0.95, 1.6)
	})
}

// TestFlightStalledReader lets the far program read nothing for a while: that is
// not the line's doing, and afterwards all is as before.
func TestFlightStalledReader(t *testing.T) {
	onLine(t, lineOf(200e6, 20*time.Millisecond), func(t *testing.T, s *slow) {
		go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
		count(s.x)
		if _, err := io.CopyN(io.Discard, onlyReader{s.y}, 100<<20); err != nil {
			t.Fatal(err)
		}
		before := flightOf(s.x)
		time.Sleep(5 * time.Second) // the window fills up
		if st := s.y.State(); st.Received-(100<<20) < maxWindow/2 {
			t.Errorf("%d bytes are here unread, want most of a window", st.Received-(100<<20))
		}
		if f := flightOf(s.x); f.rate < before.rate*9/10 || f.mode == flightRival {
			t.Errorf("rate %.1f Mbit/s in mode %d after a stall, before %.1f", f.rate*8/1e6, f.mode, before.rate*8/1e6)
		}
		n := count(s.y)
		time.Sleep(time.Second)
		s.within(s.x, n, 5*time.Second, 0.97, 1.3)
	})
}

// TestFlightRival shares the line with a flow that fills the buffer, as TCP does
// that only loss stops: the channel is not starved, and keeps the queue small
// again when it is alone.
func TestFlightRival(t *testing.T) {
	onLine(t, lineOf(40e6, 40*time.Millisecond), func(t *testing.T, s *slow) {
		n := bulk(s.x, s.y)
		count(s.x)
		time.Sleep(5 * time.Second)
		a, b := s.pair(t)
		bulk(a, b)
		time.Sleep(5 * time.Second)
		var shares []float64
		for range 6 {
			shares = append(shares, s.share(n, 10*time.Second))
		}
		t.Logf("shares of ten seconds beside a greedy flow: %.2f", shares)
		if low := slices.Min(shares); low < 0.3 {
			t.Errorf("%.2f of the line beside a greedy flow, want 0.3", low)
		}
		a.Close()
		b.Close()
		time.Sleep(maxRivalTime + 5*time.Second)
		s.within(s.x, n, 12*time.Second, 0.97, 1.3)
	})
}

// TestFlightAfterRest begins bulk on a channel that has rested for longer than a
// round trip counts, with nothing or little sent before: the line is used at once.
func TestFlightAfterRest(t *testing.T) {
	for _, before := range []int{0, 256 << 10} {
		for _, rest := range []time.Duration{3 * time.Second, 13 * time.Second, 5 * time.Minute} {
			t.Run(fmt.Sprintf("%d bytes, %s", before, rest), func(t *testing.T) {
				onLine(t, lineOf(20e6, 100*time.Millisecond), func(t *testing.T, s *slow) {
					n := count(s.y)
					count(s.x)
					if _, err := s.x.Write(make([]byte, before)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(rest)
					go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
					time.Sleep(time.Second)
					s.within(s.x, n, 3*time.Second, 0.95, 1.6)
				})
			})
		}
	}
}

// TestFlightFast never binds where nothing waits, and probes seldom.
func TestFlightFast(t *testing.T) {
	onLine(t, lineOf(10e9, 100*time.Microsecond), func(t *testing.T, s *slow) {
		bulk(s.x, s.y)
		count(s.x)
		for range 100 {
			time.Sleep(time.Millisecond)
			if f := flightOf(s.x); f.mode != flightOpen {
				t.Fatalf("mode %d, limit %d, shortest round trip %s", f.mode, f.limit, f.minRTT)
			}
		}
	})
}

// TestFlightBrisk sends small frames beside bulk on a fast path: little is under
// way before them then, and a second after the last of them bulk is alone again.
func TestFlightBrisk(t *testing.T) {
	onLine(t, lineOf(2.5e9, 100*time.Microsecond), func(t *testing.T, s *slow) {
		bulk(s.x, s.y)
		count(s.x)
		most := func(d time.Duration) (limit, under uint64, backlog int) {
			limit, backlog = 0, 0
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				st := s.x.State().Flight
				limit, under, backlog = max(limit, st.Bound), max(under, st.Under), max(backlog, s.x.Backlog())
			}
			return limit, under, backlog
		}
		if limit, _, backlog := most(100 * time.Millisecond); limit != 0 || backlog != unsentMax {
			t.Fatalf("a bound of %d bytes and a backlog of %d beside nothing, want none and %d", limit, backlog, unsentMax)
		}
		s.x.Brisk()
		time.Sleep(10 * time.Millisecond)
		limit, under, backlog := most(briskTime / 2)
		if limit != briskFlight || under > briskFlight || backlog > briskFlight/4 {
			t.Errorf("beside small frames a bound of %d bytes, %d under way, %d before them; want %d", limit, under, backlog, briskFlight)
		}
		time.Sleep(briskTime)
		if limit, _, backlog := most(100 * time.Millisecond); limit != 0 || backlog != unsentMax {
			t.Errorf("a bound of %d bytes and a backlog of %d after the last small frame, want none", limit, backlog)
		}
	})
}

// TestFlightClose closes a channel while there is a bound and more to send than it
// lets through: all of it arrives, and the end.
func TestFlightClose(t *testing.T) {
	onLine(t, lineOf(20e6, 40*time.Millisecond), func(t *testing.T, s *slow) {
		const warm, size = 4 << 20, 5 << 20
		got := make(chan error, 1)
		go func() {
			n, err := io.Copy(io.Discard, onlyReader{s.y})
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes have come, want %d", n, size)
			}
			got <- errors.Join(err, s.y.Close())
		}()
		count(s.x)
		if _, err := s.x.Write(make([]byte, warm)); err != nil {
			t.Fatal(err)
		}
		if f := flightOf(s.x); f.mode != flightBound {
			t.Fatalf("mode %d beside a full line, want bound", f.mode)
		}
		if _, err := s.x.Write(make([]byte, size-warm)); err != nil {
			t.Fatal(err)
		}
		if err := s.x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-got; err != nil {
			t.Errorf("the far end: %v", err)
		}
	})
}

// TestFlightResume cuts the path: what was known of the line is forgotten with it,
// and what is sent again is under way on the next.
func TestFlightResume(t *testing.T) {
	onLine(t, lineOf(200e6, 20*time.Millisecond), func(t *testing.T, s *slow) {
		n := bulk(s.x, s.y)
		count(s.x)
		time.Sleep(2 * time.Second)
		if f := flightOf(s.x); f.mode != flightBound {
			t.Fatalf("mode %d beside a full line, want bound", f.mode)
		}
		s.lab.cutAndResume(s.x)
		f := flightOf(s.x)
		if f.mode != flightOpen || f.rate != 0 {
			t.Errorf("on a new path: mode %d, rate %.0f, round trip %s", f.mode, f.rate, f.minRTT)
		}
		time.Sleep(2 * time.Second)
		s.within(s.x, n, 5*time.Second, 0.97, 1.3)
	})
}
