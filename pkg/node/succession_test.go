package node

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// A tally counts links that are up, of which none may be twice at a time.
type tally struct {
	mu  sync.Mutex
	ups map[Address]int
	all int // calls
}

func (y *tally) trace(t *testing.T) *Trace {
	y.ups = map[Address]int{}
	count := func(a Address, n int) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.all++
		if y.ups[a] += n; y.ups[a] < 0 || y.ups[a] > 1 {
			t.Errorf("%s is up %d times", a, y.ups[a])
		}
	}
	return &Trace{
		LinkUp:   func(a Address, _ Origin, _ net.Addr) { count(a, 1) },
		LinkDown: func(a Address, _ error) { count(a, -1) },
	}
}

func (y *tally) want(t *testing.T, addresses, calls int) {
	t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.ups) != addresses || y.all != calls {
		t.Errorf("%d links have been told of, %d times; want %d and %d", len(y.ups), y.all, addresses, calls)
	}
}

// TestTraceOfSuccession: the trace hears of a conn's end before it hears that the next one of
// its series is up, also where the program holds up something that the first has brought.
func TestTraceOfSuccession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var links tally
		b := New(Config{Trace: links.trace(t)})
		allow, held, release := holding()
		start(t, b, "sink", new(record), Options{Allow: allow})
		var parts sync.WaitGroup
		defer parts.Wait()
		defer b.Close()
		for attempt := range uint64(4) {
			near, far := net.Pipe()
			parts.Go(func() { b.serveConn(b.ctx, far) })
			parts.Go(func() { _, _ = io.Copy(io.Discard, near) })
			s := &stranger{Conn: near}
			s.write(t, hello{series: [16]byte{1}, attempt: attempt + 1}.append(nil))
			s.send(t, Route{"sink"}, nil, head{hops: 9}, "x")
			if attempt == 0 {
				<-held
			}
			synctest.Wait()
		}
		links.want(t, 1, 7)
		close(release)
	})
}
