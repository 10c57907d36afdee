package channel

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/line"
	"github.com/culvert-net/culvert/pkg/code"
)

// TestSlowLineSilent has a full line of 32 kbit/s bring nothing any more, of one side
// or of both, without a word: that is noticed when what was on its way has come and
// two intervals have passed, and not before; and the next path carries both ways again.
func TestSlowLineSilent(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, 5 * time.Second} {
		for _, both := range []bool{false, true} {
			for _, silent := range []string{"near", "far", "near and far"} {
				t.Run(fmt.Sprintf("%s, both ways %v, %s", interval, both, silent), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { slowLineSilent(t, interval, both, silent) })
				})
			}
		}
	}
}

func slowLineSilent(t *testing.T, interval time.Duration, both bool, silent string) {
	const rate = 32e3
	d := &diary{}
	s := &slow{t: t, cfg: line.Config{Rate: rate, Delay: 25 * time.Millisecond, Buffer: 8 << 10}}
	s.Line = line.New(s.cfg)
	s.lab = newLabOn(t, s.pair, 1, Settings{Keepalive: interval, Trace: d.trace()}, Timing{}, Limits{})
	s.x, s.y = s.lab.open()
	defer func() {
		s.x.Fail(code.Internal, errEnd)
		s.y.Fail(code.Internal, errEnd)
		s.lab.cutAll()
		s.Line.Close()
		s.joins.Wait()
	}()
	flows := []*atomic.Int64{bulk(s.x, s.y)}
	if both {
		flows = append(flows, bulk(s.y, s.x))
	} else {
		count(s.x)
	}
	time.Sleep(time.Minute)
	if _, lost := d.counts(); lost != 0 {
		t.Fatalf("%d paths lost before anything was silent: %v", lost, d.lost[0].err)
	}

	s.lab.mu.Lock()
	path := s.lab.paths[len(s.lab.paths)-1]
	s.lab.mu.Unlock()
	begin := time.Now()
	if silent != "far" {
		path.a.(*memConn).hole()
	}
	if silent != "near" {
		path.b.(*memConn).hole()
	}
	waitUpFor(t, s.x, false, time.Minute)
	// What is under way comes yet, 2 s of it, behind a record that has begun.
	between(t, "the silence is noticed", time.Since(begin), 2*interval-interval/2, 2*interval+4*time.Second)
	waitUp(t, s.x, true)

	time.Sleep(20 * time.Second)
	for i, n := range flows {
		if got := s.share(n, time.Minute); got < 0.5 {
			t.Errorf("flow %d has %.2f of the line on the next path, want 0.5", i, got)
		}
	}
	if _, lost := d.counts(); lost > 2 {
		t.Errorf("%d paths lost, want the silent one, at either end: %v", lost, d.lost)
	}
}

// TestFlightRateBesideQueue fills a line of 32 kbit/s at once, while the peer's probes,
// which were sent together too, have waited for longer than any PONG: the rate is not
// taken for more than the line's.
func TestFlightRateBesideQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, records = 4000, 16
		var f flight
		var bodies [records + 1]uint64
		f.reset(0, time.Now())
		ping := func(i int) {
			var b [pingLen]byte
			f.probe(uint64(i*minStride), 0, b[:])
			bodies[i] = binary.BigEndian.Uint64(b[:])
		}
		ping(0)
		f.back.pinged(0, 0, 0)
		for i := 1; i <= records; i++ {
			f.sent(minStride, uint64(i*minStride), 0)
			ping(i)
		}
		time.Sleep(50 * time.Millisecond)
		f.pong(bodies[0], records*minStride, 0)
		for i := 1; i <= records; i++ {
			time.Sleep(minStride * time.Second / rate)
			f.back.pinged(uint64(i), uint64(i*minStride), time.Since(f.base)) // sent at the start
			f.pong(bodies[i], records*minStride, 0)
			if f.rate > 1.05*rate {
				t.Fatalf("after %d records the rate is taken for %.0f bytes per second, want %d", i, f.rate, rate)
			}
		}
		if f.rate < 0.8*rate {
			t.Errorf("the rate is taken for %.0f bytes per second, want %d", f.rate, rate)
		}
	})
}

// TestFlightShortestBesideQueue has the peer's queue become shorter, and then shorter or
// longer, from each of its probes to the next, so that a PONG has waited for less than
// one of the two: no more than that is taken off the shortest round trip. The first,
// for which there is nothing else, comes out as too short.
func TestFlightShortestBesideQueue(t *testing.T) {
	const (
		rtt   = 20 * time.Millisecond
		gap   = time.Millisecond // from one of the peer's probes to the next
		falls = 10 * gap
		over  = firstRTTAge + 100*gap
	)
	for name, rises := range map[string]bool{"falls": false, "falls and rises": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f flight
				f.reset(0, time.Now().Add(-time.Second))
				now := func() time.Duration { return time.Since(f.base) }
				f.pinged(uint64(now()), 0) // which has not waited
				start := now()
				queue := func() time.Duration { // by half of the time that passes
					d := now() - start
					if rises {
						d = min(d, 2*falls-d)
					}
					return over - d/2
				}
				f.pinged(uint64(now()-queue()), 0)
				for i := range uint64(over / gap) {
					time.Sleep(gap / 2)
					var b [pingLen]byte
					f.probe(i, 0, b[:])
					sent := now() - rtt - queue()
					f.probes[(f.first+f.n-1)%maxProbes].sent = sent
					f.pong(uint64(sent), i, 0)
					if first := rtt - gap/4; i == 0 && f.minRTT != first {
						t.Fatalf("the first round trip is taken for %s, want %s", f.minRTT, first)
					}
					time.Sleep(gap / 2)
					f.pinged(uint64(now()-queue()), (i+1)*minStride)
				}
				if f.minRTT < rtt || f.minRTT > rtt+gap {
					t.Errorf("the shortest round trip is taken for %s, want %s", f.minRTT, rtt)
				}
			})
		})
	}
}

// TestFlightBegin fills paths that have shown nothing yet, over lines that would take
// far more: on a slow one little waits, in the line and before the path, from the first
// byte on.
func TestFlightBegin(t *testing.T) {
	for _, rate := range []int64{32e3, 128e3, 1e6} {
		t.Run(fmt.Sprintf("%d bit/s", rate), func(t *testing.T) {
			cfg := line.Config{Rate: rate, Delay: 25 * time.Millisecond, Buffer: 512 << 10}
			onLine(t, cfg, func(t *testing.T, s *slow) {
				bulk(s.x, s.y)
				bulk(s.y, s.x)
				most := uint64(max(32<<10, 3*rate/8))
				for range 3000 {
					time.Sleep(10 * time.Millisecond)
					if st := s.x.State(); st.Flight.Under > most {
						t.Errorf("%d bytes are under way, want %d at most", st.Flight.Under, most)
						return
					}
					if n := s.x.Backlog(); n > int(most) {
						t.Errorf("%d bytes may wait before the path, want %d at most", n, most)
						return
					}
				}
			})
		})
	}
}

// TestFlightBeginUnread has a program only write, from the first byte on: what is held
// back until the peer has answered does not wait for a Read.
func TestFlightBeginUnread(t *testing.T) {
	onLine(t, lineOf(1e9, 10*time.Millisecond), func(t *testing.T, s *slow) {
		count(s.y)
		start := time.Now()
		if _, err := s.x.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d >= tickTime {
			t.Errorf("a mebibyte was taken after %s, want less than the %s after which a path is read in any case", d, tickTime)
		}
	})
}

// TestFlightBeginAnswered has a program write and read messages in turn, and then only
// write: what is held back does not wait for a Read then, either.
func TestFlightBeginAnswered(t *testing.T) {
	for _, size := range []int{100, 200, 300, 700, 1000, 1500} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			onLine(t, lineOf(1e9, 10*time.Millisecond), func(t *testing.T, s *slow) {
				const messages = 20
				go func() {
					_, _ = io.CopyN(onlyWriter{s.y}, s.y, int64(messages*size))
					_, _ = io.Copy(io.Discard, s.y)
				}()
				for range messages {
					if _, err := s.x.Write(make([]byte, size)); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(s.x, make([]byte, size)); err != nil {
						t.Fatal(err)
					}
				}
				f := flightOf(s.x)
				start := time.Now()
				if _, err := s.x.Write(make([]byte, 1<<20)); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d >= tickTime {
					t.Errorf("with %d bytes ahead a mebibyte was taken after %s, want less than the %s after which a path is read in any case", f.ahead, d, tickTime)
				}
			})
		})
	}
}
