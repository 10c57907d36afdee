package node

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
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
				downs := 0
				cfg := Config{Trace: &Trace{LinkDown: func(Address, error) { downs++ }}}
				a, b := x.node(t, "127.0.0.1:1", cfg), x.node(t, "127.0.0.1:2", cfg)
				start(t, b, "length", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
					return self.Reply(ctx, m, fmt.Append(nil, len(m.Body)))
				}), Options{Allow: Anyone})
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				const size = 4 << 20
				m, err := a.Request(ctx, Route{"tcp://127.0.0.1:2", "length"}, make([]byte, size))
				if err != nil || string(m.Body) != fmt.Sprint(size) || downs > 0 {
					t.Errorf("got %v, %v; %d conns have ended", m, err, downs)
				}
			})
		})
	}
}

// TestWordsSideBySide: who takes no word of what it has lost holds up nobody else's.
func TestWordsSideBySide(t *testing.T) {
	b, addr := listening(t, Config{})
	stall(t, b, 1)
	for range 2 { // one that it handles, and one in its mailbox
		if err := b.Send(inTime(t), Route{"stalled"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	wire := newTap(t, addr)
	middle, middleAddr := listening(t, Config{Keepalive: time.Hour}) // the deaf one answers nothing
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{wire.addr()}}); err != nil {
		t.Fatal(err)
	}
	onward := Route{"on", wire.addr(), "stalled"}
	deaf := &stranger{Conn: rawLink(t, middleAddr)}
	deaf.write(t, hello{}.append(nil))
	const senders, each = 8, 100 // more words than the credit of a flow
	for i := range senders {
		back := Route{Address(fmt.Sprint("me", i))}
		deaf.send(t, onward, back, head{hops: 9}, "")
		for range each - 1 {
			deaf.write(t, head{hops: 9}.append(frame{frameData, messageHead, deaf.flows}.append(nil)))
		}
	}
	a := newNode(t, Config{})
	w := &teller{to: append(Route{middleAddr}, onward...), errs: make(chan error, each)}
	start(t, a, "teller", w, Options{})
	const own = 20
	for range own {
		if err := a.Send(inTime(t), Route{"teller"}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return middle.unsureAt(wire.addr()) == senders*each+own })
	wire.cut()
	for i := range own {
		select {
		case err := <-w.errs:
			wantCode(t, err, code.LinkLost)
		case <-time.After(patience / 2):
			t.Fatalf("it has heard of %d of %d", i, own)
		}
	}
}
