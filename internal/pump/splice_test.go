package pump

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

func TestFirst(t *testing.T) {
	c := startSplice(t, Options{FirstA: []byte("early from a "), FirstB: []byte("early from b ")})
	soon(c.left)
	soon(c.right)
	if _, err := c.left.Write([]byte("late from a")); err != nil {
		t.Fatal(err)
	}
	_ = c.left.CloseWrite()
	_ = c.right.CloseWrite()
	if got, err := io.ReadAll(c.right); err != nil || string(got) != "early from a late from a" {
		t.Errorf("b's peer got %q, %v", got, err)
	}
	if got, err := io.ReadAll(c.left); err != nil || string(got) != "early from b " {
		t.Errorf("a's peer got %q, %v", got, err)
	}
	if r := c.wait(t); r != (Result{AToB: 24, BToA: 13}) {
		t.Errorf("got %+v", r)
	}
}

func TestIdle(t *testing.T) {
	const idle = 40 * time.Millisecond
	for _, tc := range []struct {
		name  string
		pipes *Pipes
	}{{"splice", nil}, {"without pipes", noPipes()}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			c := startSplice(t, Options{Idle: idle, Pipes: tc.pipes})
			r := c.wait(t)
			if !errors.Is(r.Err, ErrIdle) {
				t.Errorf("got %v, want %v", r.Err, ErrIdle)
			}
			if took := time.Since(start); took < idle {
				t.Errorf("ended after %v, before the idle time of %v", took, idle)
			}
		})
		// One direction that moves keeps both, far beyond the idle time.
		t.Run(tc.name+"/one way", func(t *testing.T) {
			t.Parallel()
			for idle := 10 * idle; ; idle *= 4 { // on a machine that keeps the bytes for so long
				watch := testenv.Start(t)
				c := startSplice(t, Options{Idle: idle, Pipes: tc.pipes})
				err := trickle(c, idle/10, idle*5/2)
				if err == nil {
					if r := c.wait(t); !errors.Is(r.Err, ErrIdle) {
						t.Errorf("after silence: got %v, want %v", r.Err, ErrIdle)
					}
					return
				}
				if lost := watch.Lost(); lost < idle/4 || idle > 10*time.Second {
					t.Fatalf("with an idle time of %v, on a machine that has lost %v: %v", idle, lost, err)
				}
			}
		})
		// A peer that does not read is idle, too.
		t.Run(tc.name+"/stalled", func(t *testing.T) {
			t.Parallel()
			c := startSplice(t, Options{Idle: 500 * time.Millisecond, Pipes: tc.pipes})
			fill(t, c.left)
			if r := c.wait(t); !errors.Is(r.Err, ErrIdle) {
				t.Errorf("got %v, want %v", r.Err, ErrIdle)
			}
		})
	}
}

// trickle carries a byte from left to right each pause, for some time.
func trickle(c *copying, pause, d time.Duration) error {
	soon(c.right)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
		if _, err := c.left.Write([]byte("x")); err != nil {
			return err
		}
		if _, err := io.ReadFull(c.right, make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

// A deadline that is moved on cannot undo a cut that has come in between.
func TestArmAfterCut(t *testing.T) {
	a, _ := pair(t)
	b, _ := pair(t)
	s := &splice{a: a, b: b, opt: Options{Idle: time.Hour}, base: time.Now()}
	s.cut()
	if err := s.arm(a.SetReadDeadline); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the cut's deadline to stand", err)
	}
}

func TestRate(t *testing.T) {
	const rate, size = 1 << 20, 300 << 10
	for _, tc := range []struct {
		name  string
		pipes *Pipes
	}{{"splice", nil}, {"without pipes", noPipes()}} {
		t.Run(tc.name, func(t *testing.T) {
			counters := new(Counters)
			c := startSplice(t, Options{Rate: rate, Pipes: tc.pipes, Counters: counters})
			soon(c.right)
			start := time.Now()
			go func() {
				_, _ = c.left.Write(make([]byte, size))
				_ = c.left.CloseWrite()
			}()
			n, err := io.Copy(io.Discard, c.right)
			took := time.Since(start)
			if n != size || err != nil {
				t.Fatalf("got %d bytes, %v; want %d", n, err, size)
			}
			// The last chunk, a tenth of a second's, is not waited for.
			if low := time.Duration(size-rate/10) * time.Second / rate; took < low {
				t.Errorf("%d bytes took %v at %d a second, want at least %v", size, took, rate, low)
			}
			if got := counters.AToB.Load(); got != size {
				t.Errorf("counted %d bytes, want %d", got, size)
			}
			_ = c.right.CloseWrite()
			c.wait(t)
		})
	}
}

// A pause for the rate's sake does not outlast the copy.
func TestRatePauseEnds(t *testing.T) {
	c := startSplice(t, Options{Rate: 1}) // what the first bytes owe lasts for minutes
	soon(c.right)
	go func() { _, _ = c.left.Write(make([]byte, 4096)) }()
	if _, err := io.ReadFull(c.right, make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	_ = c.right.SetLinger(0)
	_ = c.right.Close()
	if r := c.wait(t); r.Err == nil {
		t.Error("got no error")
	}
}
