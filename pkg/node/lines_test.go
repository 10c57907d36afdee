package node

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// Lines are how nodes reach each other in a test that has a clock of its own
// (testing/synctest), where there are no sockets: by addresses that lead to nodes, over
// pipes whose bytes come late.
type lines struct {
	to   map[string]*Node // by host and port
	late time.Duration    // each byte
	rate int              // bytes a second, each way; 0: all there is
	hold int              // reads of 4 KiB that are under way, at most

	mu    sync.Mutex
	conns map[string][]net.Conn // by where they lead
	parts sync.WaitGroup
}

// dial is a Config.Dial.
func (x *lines) dial(_ context.Context, _, address string) (net.Conn, error) {
	near, left := net.Pipe()
	right, far := net.Pipe()
	x.mu.Lock()
	x.conns[address] = append(x.conns[address], left, right)
	x.mu.Unlock()
	x.carry(right, left)
	x.carry(left, right)
	n := x.to[address]
	x.parts.Go(func() { n.serveConn(n.ctx, far) })
	return near, nil
}

// carry brings what src has to dst, until either ends.
func (x *lines) carry(dst, src net.Conn) {
	type piece struct {
		b   []byte
		due time.Time
	}
	under := make(chan piece, max(x.hold, 1))
	x.parts.Go(func() {
		defer close(under)
		for free := time.Now(); ; {
			b := make([]byte, 4<<10)
			n, err := src.Read(b)
			if err != nil {
				return
			}
			if now := time.Now(); free.Before(now) {
				free = now
			}
			if x.rate > 0 {
				free = free.Add(time.Duration(n) * time.Second / time.Duration(x.rate))
			}
			under <- piece{b[:n], free.Add(x.late)}
		}
	})
	x.parts.Go(func() {
		defer func() {
			_, _ = dst.Close(), src.Close()
			for range under {
			}
		}()
		for p := range under {
			time.Sleep(time.Until(p.due))
			if _, err := dst.Write(p.b); err != nil {
				return
			}
		}
	})
}

// cut ends the conns that lead there.
func (x *lines) cut(address string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns[address] {
		_ = c.Close()
	}
}

// node returns a node that others reach at host and port.
func (x *lines) node(t testing.TB, address string, cfg Config) *Node {
	t.Helper()
	cfg.Dial = x.dial
	n := New(cfg)
	if x.to == nil {
		x.to, x.conns = map[string]*Node{}, map[string][]net.Conn{}
	}
	x.to[address] = n
	return n
}

// close ends the nodes and the lines.
func (x *lines) close() {
	for _, n := range x.to {
		_ = n.Close()
	}
	for address := range x.to {
		x.cut(address)
	}
	x.parts.Wait()
}
