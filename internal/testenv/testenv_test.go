package testenv

import (
	"fmt"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Ports differ, are free, lie below those that the system gives away, and are claimed for
// as long as the test runs.
func TestPort(t *testing.T) {
	seen := map[int]bool{}
	t.Run("taken", func(t *testing.T) {
		for range 50 {
			port := Port(t)
			if seen[port] || port < firstPort || port >= lastPort {
				t.Fatalf("port %d, after %v", port, seen)
			}
			seen[port] = true
			if release := reserve(port); release != nil {
				t.Errorf("port %d is given twice", port)
				release()
			}
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			if err := ln.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	released := 0
	for port := range seen {
		if release := reserve(port); release != nil {
			released++
			release()
		}
	}
	if released < len(seen)/2 { // others may have some of them by now
		t.Errorf("%d of %d ports are free after the test", released, len(seen))
	}
}

// A port at which somebody listens is given to nobody.
func TestPortThatIsListenedAt(t *testing.T) {
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	release() // the claim on it, not the listener
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if release := reserve(port); release != nil {
		release()
		t.Errorf("port %d is given while somebody listens there", port)
	}
}

// What a watch has lost is how late its looks are, whoever looks first afterwards.
func TestWatchLoses(t *testing.T) {
	const ms = time.Millisecond
	base := time.Unix(1000, 0)
	for name, tt := range map[string]struct {
		looks []time.Duration // since the start; below zero: not a tick's
		want  time.Duration
	}{
		"in time":               {[]time.Duration{5 * ms, 10 * ms, 15 * ms}, 0},
		"a little late":         {[]time.Duration{9 * ms, 19 * ms, 28 * ms}, 0},
		"asked in between":      {[]time.Duration{5 * ms, -7 * ms, -9 * ms, 10 * ms}, 0},
		"stopped":               {[]time.Duration{5 * ms, 3005 * ms, 3010 * ms}, 2995 * ms},
		"asked after a stop":    {[]time.Duration{5 * ms, -3005 * ms, 3006 * ms, 3011 * ms}, 2995 * ms},
		"asked once more":       {[]time.Duration{5 * ms, -3005 * ms, -3006 * ms, 3007 * ms}, 2995 * ms},
		"a look that was early": {[]time.Duration{5 * ms, -3005 * ms, 3004 * ms, 3010 * ms}, 2995 * ms},
		"stopped twice":         {[]time.Duration{105 * ms, 110 * ms, 210 * ms}, 195 * ms},
	} {
		w := &Watch{began: base, last: base}
		var got time.Duration
		for _, at := range tt.looks {
			got = w.look(base.Add(at.Abs()), at > 0)
		}
		if got != tt.want {
			t.Errorf("%s: lost %v, want %v", name, got, tt.want)
		}
	}
}

// A watch of a process that runs goes as clocks do, or behind them.
func TestWatchRuns(t *testing.T) {
	began := time.Now()
	w := Start(t)
	for time.Since(began) < 50*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	lost, took := w.Lost(), w.Took() // in this order: what is lost grows
	if all := time.Since(began); took > all || took+lost > all || took < 0 || lost < 0 {
		t.Errorf("took %v and lost %v, of %v", took, lost, all)
	}
}
