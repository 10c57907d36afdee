package channel

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/line"
)

// TestFlightMuchSlower makes the line five hundred times slower, as where a radio's
// reach ends, and fast again: what was under way takes its time, and with it what is
// known of the fast line, but then little waits.
func TestFlightMuchSlower(t *testing.T) {
	fast := lineOf(100e6, 50*time.Millisecond)
	onLine(t, fast, func(t *testing.T, s *slow) {
		n := bulk(s.x, s.y)
		count(s.x)
		time.Sleep(5 * time.Second)
		s.change(line.Config{Rate: 200e3, Delay: 25 * time.Millisecond, Buffer: 64 << 10})
		time.Sleep(2 * time.Minute)
		if f := flightOf(s.x); f.rate*8 > 2*float64(s.cfg.Rate) || f.minRTT > 4*s.rtt() {
			t.Errorf("on a line of %.1f Mbit/s and %s the rate is taken for %.1f Mbit/s, the round trip for %s", float64(s.cfg.Rate)/1e6, s.rtt(), f.rate*8/1e6, f.minRTT)
		}
		s.within(s.x, n, 5*time.Second, 0.85, 15) // a record, and its PONG, take a tenth of a second each
		s.change(fast)
		time.Sleep(4 * time.Second)
		s.within(s.x, n, 2*time.Second, 0.95, 1.5)
	})
}
