package channel

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A State says since when the path's keys are used, how often the path has changed,
// and how long the peer has taken for its last answer: on a quiet channel too, whose
// keepalive asks.
func TestStateOfThePath(t *testing.T) {
	const way = 20 * time.Millisecond // each way
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		l.wrap = func(_ int, a, b net.Conn) (net.Conn, net.Conn) {
			return &lateConn{Conn: a, by: way}, &lateConn{Conn: b, by: way}
		}
		x, y := l.open()
		ends := []<-chan error{drainAll(t, x), drainAll(t, y)}
		began := time.Now()
		for _, c := range []*Channel{x, y} {
			if st := c.State(); st.Changes != 0 || st.Ping != 0 || began.Sub(st.Keys) > time.Second || st.Keys.IsZero() {
				t.Errorf("of a new channel: %+v", st)
			}
		}
		time.Sleep(20 * time.Second) // keepalives
		for _, c := range []*Channel{x, y} {
			between(t, "the ping of a quiet channel", c.State().Ping, 2*way, 2*way+5*time.Millisecond)
		}
		for n := uint64(1); n <= 3; n++ {
			keys := x.State().Keys
			l.cutAll()
			synctest.Wait()
			waitUp(t, x, true)
			waitUp(t, y, true)
			for _, c := range []*Channel{x, y} {
				if st := c.State(); st.Changes != n || !st.Keys.After(keys) {
					t.Errorf("after %d losses: %+v, and keys before since %s", n, st, keys)
				}
			}
			time.Sleep(20 * time.Second)
		}
		keys := x.State().Keys
		l.refuseRoutes(noRoutes)
		l.cutAll()
		synctest.Wait()
		waitUp(t, x, false)
		if st := x.State(); st.Changes != 3 || !st.Keys.Equal(keys) {
			t.Errorf("without a path: %+v, want what was last", st)
		}
		l.refuseRoutes(nil)
		waitUp(t, x, true)
		waitUp(t, y, true)
		closeChannels(t, x, y)
		for _, end := range ends {
			<-end
		}
	})
}

// A peer's answer that cannot be one is no measure, and does no harm.
func TestPingOfALiar(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		ends := []<-chan error{drainAll(t, x), drainAll(t, y)}
		time.Sleep(time.Second)
		x.mu.Lock()
		p, was := x.path, x.ping
		x.mu.Unlock()
		for _, body := range [][]byte{
			{255, 255, 255, 255, 255, 255, 255, 255}, {128, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 1, 0, 0, 0, 0, 0}, // from the future
		} {
			x.ponged(p, body)
			if st := x.State(); st.Ping != was {
				t.Errorf("after the answer %x: ping %s, before it %s", body, st.Ping, was)
			}
		}
		x.ponged(p, make([]byte, 8)) // to a PING at the very beginning
		if st := x.State(); st.Ping == was || st.Ping > time.Since(st.Keys) {
			t.Errorf("ping %s, longer than the path lives", st.Ping)
		}
		closeChannels(t, x, y)
		for _, end := range ends {
			<-end
		}
	})
}

// A lateConn is one whose Writes arrive later.
type lateConn struct {
	net.Conn
	by time.Duration

	mu   sync.Mutex
	last <-chan struct{} // closed when the Write before has arrived
}

func (c *lateConn) Write(p []byte) (int, error) {
	p = append([]byte(nil), p...)
	done := make(chan struct{})
	c.mu.Lock()
	before := c.last
	c.last = done
	c.mu.Unlock()
	time.AfterFunc(c.by, func() {
		defer close(done)
		if before != nil {
			<-before
		}
		_, _ = c.Conn.Write(p) // it may have ended meanwhile
	})
	return len(p), nil
}
