package channel

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// TestFlightRequests sends small requests, one after another, on a channel that
// knows its line: they say nothing about it, and the bulk that follows has it at once.
func TestFlightRequests(t *testing.T) {
	for _, tc := range []struct {
		size  int
		every time.Duration
		n     int
	}{
		{100, 10 * time.Millisecond, 3000},
		{100, 50 * time.Millisecond, 600},
		{1000, 50 * time.Millisecond, 600},
		{100, 150 * time.Millisecond, 300},
		{4000, 300 * time.Millisecond, 100},
		{100, 11 * time.Second, 20},
		{10000, 11 * time.Second, 20},
	} {
		t.Run(fmt.Sprintf("%d bytes every %s", tc.size, tc.every), func(t *testing.T) {
			onLine(t, lineOf(100e6, 100*time.Millisecond), func(t *testing.T, s *slow) {
				n := count(s.y)
				count(s.x)
				if _, err := s.x.Write(make([]byte, 32<<20)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				before := flightOf(s.x)
				for range tc.n {
					if _, err := s.x.Write(make([]byte, tc.size)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(tc.every)
				}
				f := flightOf(s.x)
				if f.rate < before.rate*9/10 {
					t.Errorf("the rate is taken for %.1f Mbit/s after requests, %.1f before", f.rate*8/1e6, before.rate*8/1e6)
				}
				go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
				time.Sleep(200 * time.Millisecond)
				s.within(s.x, n, time.Second, 0.8, 3)
			})
		})
	}
}

// TestFlightLateKeepAlive has the peer answer a keepalive's PING in place of the
// probe before it, as it does when its sending is held up for a while: all before
// that PING has arrived, too, and what waits for the bound goes on.
func TestFlightLateKeepAlive(t *testing.T) {
	onLine(t, lineOf(10e6, 50*time.Millisecond), func(t *testing.T, s *slow) {
		n := count(s.y)
		count(s.x)
		if _, err := s.x.Write(make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if f := flightOf(s.x); f.mode != flightBound {
			t.Fatalf("the flight is in mode %d, want a bound", f.mode)
		}
		near, far := pathOf(s.x), pathOf(s.y)
		far.w.mu.Lock()
		far.w.busy = true // it sends nothing
		far.w.mu.Unlock()
		go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
		time.Sleep(time.Second)
		if err := near.Ping(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := n.Load()
		s.y.mu.Lock()
		s.y.acked-- // the ACK of the last bytes is due by its tick, not together with the answer
		s.y.tickLocked()
		s.y.mu.Unlock()
		far.w.mu.Lock()
		far.w.ack = false
		far.w.startFlusherLocked()
		far.w.mu.Unlock()
		time.Sleep(time.Second)
		if got := n.Load() - before; got < s.cfg.Rate/8*3/4 {
			t.Errorf("%d bytes came in the second after the answer, want most of %d", got, s.cfg.Rate/8)
		}
	})
}

// TestFlightRequestsBeside sends small requests on a line that others queue on, now
// and then: their waiting is not the requests' doing, and says nothing about the rate.
func TestFlightRequestsBeside(t *testing.T) {
	onLine(t, lineOf(100e6, 20*time.Millisecond), func(t *testing.T, s *slow) {
		n := count(s.y)
		count(s.x)
		if _, err := s.x.Write(make([]byte, 32<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := flightOf(s.x)
		a, b := s.pair(t)
		count(b)
		for range 300 {
			_, _ = a.Write(make([]byte, 128<<10)) // 10 ms
			time.Sleep(2 * time.Millisecond)
			if _, err := s.x.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		f := flightOf(s.x)
		if f.rate < before.rate*9/10 {
			t.Errorf("the rate is taken for %.1f Mbit/s after requests, %.1f before", f.rate*8/1e6, before.rate*8/1e6)
		}
		a.Close()
		b.Close()
		go func() { _, _ = io.Copy(onlyWriter{s.x}, zeros{}) }()
		time.Sleep(100 * time.Millisecond)
		s.within(s.x, n, time.Second, 0.8, 3)
	})
}
