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

// TestWordsWhenAllStoodStill: nor does it give up words of losses because there was no room
// for them in a time in which it could not read that there is; but it does when there is none
// afterwards, either.
func TestWordsWhenAllStoodStill(t *testing.T) {
	for name, room := range map[string]bool{"room": true, "no room": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, Config{})
				release := make(chan struct{})
				t.Cleanup(func() { close(release) })
				start(t, n, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
					<-release
					return nil
				}), Options{Mailbox: 1})
				for range 2 { // one that it handles, and one in its mailbox
					if err := n.Send(t.Context(), Route{"stalled"}, nil); err != nil {
						t.Fatal(err)
					}
				}
				if room {
					go func() {
						time.Sleep(lastWords + lastWords/2)
						release <- struct{}{}
					}()
				}
				began := time.Now()
				s := n.spell()
				defer func() { s.end() }()
				s.began = s.began.Add(-10 * time.Second) // as it is when no clock in the process has run for that long
				told := s.deliver(&Message{Onward: Route{"stalled"}, hops: 9})
				if took := time.Since(began); told != room || took < lastWords+lastWords/2 || took > 2*lastWords {
					t.Errorf("told: %t, after %s", told, took)
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
