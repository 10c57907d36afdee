package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowLine: a conn whose line is slow does not count as silent while bytes come, be it
// parts of one frame, nor while what asks for a sign of life stands behind much that is on
// its way.
func TestSlowLine(t *testing.T) {
	for name, x := range map[string]*lines{
		"slower than a frame in the time of silence": {rate: 3 << 10, hold: 1},
		"holds much":     {rate: 100 << 10, hold: 1 << 10},
		"takes its time": {rate: 1 << 20, hold: 1 << 10, late: 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer x.close()
				var downs atomic.Int32
				cfg := Config{Trace: &Trace{LinkDown: func(Address, error) { downs.Add(1) }}}
				a, b := x.node(t, "127.0.0.1:1", cfg), x.node(t, "127.0.0.1:2", cfg)
				start(t, b, "length", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
					return self.Reply(ctx, m, fmt.Append(nil, len(m.Body)))
				}), Options{Allow: Anyone})
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				const size = 4 << 20
				m, err := a.Request(ctx, Route{"tcp://127.0.0.1:2", "length"}, make([]byte, size))
				if err != nil || string(m.Body) != fmt.Sprint(size) || downs.Load() > 0 {
					t.Errorf("got %v, %v; %d conns have ended", m, err, downs.Load())
				}
			})
		})
	}
}

// TestSilentWhenAllStoodStill: a node that stood still itself, as on a machine that has too
// much to do, takes no conn for silent that it could not have read from; but one that says
// nothing afterwards, either.
func TestSilentWhenAllStoodStill(t *testing.T) {
	n := newNode(t, Config{})
	l := n.newLink(n.ctx, nil, "conn", Origin{Outside: true}, 5*time.Second)
	l.seen.Store(int64(4 * time.Second))
	l.lookAfter(5*time.Second, 26*time.Second) // instead of at 10 s
	if err := l.ctx.Err(); err != nil {
		t.Fatal(context.Cause(l.ctx))
	}
	if !l.pong {
		t.Error("the other side, which has not stood still, gets no sign of life")
	}
	for at := 30 * time.Second; at <= 40*time.Second; at += 5 * time.Second {
		if l.ctx.Err() != nil {
			t.Fatalf("it has ended before %s: %v", at, context.Cause(l.ctx))
		}
		l.lookAfter(at-5*time.Second, at)
	}
	if l.ctx.Err() == nil {
		t.Error("it goes on when nothing comes")
	}
}
