package channel

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeepAliveKeepsAQuietConnAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		x, y := connPair(t, a, b, Options{Linger: time.Second})
		x.SetKeepAlive(5*time.Second, 10*time.Second)
		errs := make(chan error, 2)
		for _, c := range []*Conn{x, y} {
			go func() {
				_, err := c.Read(make([]byte, 1))
				errs <- err
			}()
		}
		time.Sleep(time.Hour)
		select {
		case err := <-errs:
			t.Errorf("a Read ended after an hour of silence: %v", err)
		default:
		}
		go func() { _ = x.Close() }()
		<-errs
		<-errs
		_ = y.Close()
	})
}

func TestSilentPeerIsFoundDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		x, y := connPair(t, a, b, Options{Linger: time.Second})
		x.SetKeepAlive(5*time.Second, 10*time.Second)
		go func() { // swallows what x sends, answers nothing
			buf := make([]byte, 1024)
			for {
				if _, err := b.Read(buf); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		_, err := x.Read(make([]byte, 1))
		if !errors.Is(err, ErrDead) {
			t.Errorf("Read = %v, want ErrDead", err)
		}
		if got := time.Since(start); got < 10*time.Second || got > 11*time.Second {
			t.Errorf("noticed after %s, want 10 s", got)
		}
		_ = x.Close()
		_ = y.Close()
	})
}

// A conn whose program does not read cannot be judged, and is not.
func TestNoReadNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		x, y := connPair(t, a, b, Options{Linger: time.Second})
		x.SetKeepAlive(0, 10*time.Second)
		time.Sleep(time.Minute)
		go func() { _, _ = y.Write([]byte("x")) }()
		if _, err := x.Read(make([]byte, 1)); err != nil {
			t.Errorf("Read = %v", err)
		}
		go func() { _ = x.Close() }()
		_, _ = y.Read(make([]byte, 1))
		_ = y.Close()
		synctest.Wait()
	})
}

// TestNothingSentIsNoSignOfLife writes what the flight has no room for: the
// keepalive is not put off by that.
func TestNothingSentIsNoSignOfLife(t *testing.T) {
	onLine(t, lineOf(10e6, 50*time.Millisecond), func(t *testing.T, s *slow) {
		count(s.x)
		count(s.y)
		time.Sleep(time.Second)
		s.x.mu.Lock()
		f := &s.x.flight
		f.limit, f.begun, f.probed, f.n = 0, true, s.x.next, 1
		s.x.mu.Unlock()
		path := pathOf(s.x)
		before := path.w.sent.Load()
		if _, err := s.x.Write(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if got := path.w.sent.Load(); got != before {
			t.Errorf("nothing was sent, but that counts as sent at %s, the last record went at %s", time.Duration(got), time.Duration(before))
		}
	})
}

func pathOf(c *Channel) *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path
}
