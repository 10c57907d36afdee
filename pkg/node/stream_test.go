package node

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestSmallPiecesTogether: a stream holds many small pieces as few, and gives them on in
// order, also while they are taken.
func TestSmallPiecesTogether(t *testing.T) {
	s := newStream(nil, &arrival{total: 1 << 20})
	var want, got []byte
	for i := range 20_000 {
		b := []byte{byte(i), byte(i >> 8)}[:1+i%2]
		want = append(want, b...)
		s.put(bytes.Clone(b))
		if i%7 != 0 {
			continue
		}
		next, _, err := s.next()
		if err != nil {
			t.Fatal(err)
		}
		n := min(len(next), i%11)
		s.put([]byte{7}) // while next's are being sent
		want = append(want, 7)
		got = append(got, next[:n]...)
		s.take(n)
	}
	if len(s.held) > 2+len(want)/(putTogether/2) {
		t.Errorf("%d bytes are held as %d pieces", len(want)-len(got), len(s.held))
	}
	for len(got) < len(want) {
		next, _, _ := s.next()
		got = append(got, next...)
		s.take(len(next))
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes have come out")
	}
}

// TestRefusedBetweenPieces: a message that goes on as it comes ends, on all its way, when
// the last node refuses it while nothing of it comes, or its sender gives it up while it
// has no credit there.
func TestRefusedBetweenPieces(t *testing.T) {
	last, lastAddr := listening(t, Config{Buffer: 1})
	narrow(last, 1<<20)
	start(t, last, "sink", echo, Options{Allow: Anyone})
	middle, addr := listening(t, Config{Keepalive: time.Hour}) // the strangers answer nothing
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{lastAddr}}); err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, addr)
	s.beginLarge(t, Route{"on", lastAddr, "sink"}, Route{"me"}, 1<<20)
	granted := func() *claim {
		last.budget.mu.Lock()
		defer last.budget.mu.Unlock()
		if last.budget.granted.Len() < 2 {
			return nil
		}
		return last.budget.granted.Back().Value.(*claim)
	}
	var c *claim
	eventually(t, func() bool { c = granted(); return c != nil })
	c.got.Store(MaxBody) // however long this takes, it gives way when it is asked here
	other := newStranger(t, addr)
	other.beginLarge(t, Route{"on", lastAddr, "sink"}, Route{"another"}, MaxBody)
	if f, said := other.next(t); f.typ != frameCredit {
		t.Fatalf("the middle says %d, %x", f.typ, said)
	}
	other.write(t, append(frame{frameData, 1000, 1}.append(nil), make([]byte, 1000)...)) // has no credit at the last one
	waiting := func() int { last.budget.mu.Lock(); defer last.budget.mu.Unlock(); return last.budget.waiting }
	eventually(t, func() bool { return waiting() == 1 })
	other.write(t, frame{frameDrop, 0, 1}.append(nil))
	eventually(t, func() bool { return waiting() == 0 })
	c.giveWay()
	for {
		if f, said := s.next(t); f.typ == frameRefuse {
			wantCode(t, decodeNotice(said[4:]), code.Limit)
			break
		}
	}
	eventually(t, func() bool { return granted() == nil })
}

// goingOn returns a message of 1 MiB that comes in pieces and goes on by a link that nobody
// runs, in its flow.
func goingOn(t *testing.T) (*link, *Message, *outflow) {
	t.Helper()
	n := newNode(t, Config{})
	l := n.newLink(n.ctx, nil, "conn", Origin{Outside: true}, 0)
	m := &Message{Onward: Route{"sink"}, hops: 9, stream: newStream(nil, &arrival{total: 1 << 20})}
	f, err := l.flow(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return l, m, f
}

// TestWaitsForTheNextNode: a message that has come, and waits for the next node to take it,
// does not count as one that comes too slowly, then or when that goes on.
func TestWaitsForTheNextNode(t *testing.T) {
	for _, what := range []string{"credit", "room"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m, f := goingOn(t)
				f.granted = what == "room"
				piece := func(size int, goes bool) {
					t.Helper()
					if got, _, err := l.piece(f, m, make([]byte, size)); err != nil || goes != (got >= 0) {
						t.Fatalf("%d of %d bytes go (%v)", got, size, err)
					}
				}
				piece(startCredit-messageHead, true)
				piece(0, false)
				out := l.out
				if what == "room" {
					l.out = make([]byte, maxUnsent)
				}
				piece(1000, false)
				time.Sleep(time.Minute)
				if f.slow() {
					t.Error("it counts as slow while it waits")
				}
				l.out, f.granted = out, true
				piece(1000, true)
				piece(0, false)
				if f.slow() {
					t.Error("it counts as slow when it goes on")
				}
				time.Sleep(2 * slowGrace)
				if !f.slow() {
					t.Error("it does not count as slow when no more comes")
				}
			})
		})
	}
}

// TestSlowWhenAllStoodStill: a node that stood still itself, as on a machine that has too
// much to do, takes no message for slow whose bytes it could not have read.
func TestSlowWhenAllStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, f := goingOn(t)
		gone := 0
		piece := func(size int) {
			n, _, err := l.piece(f, m, make([]byte, size))
			if err != nil {
				t.Fatal(err)
			}
			gone += max(n, 0)
		}
		look := func(refuses bool) {
			t.Helper()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.closeOldestLocked()
			if got := f.refused != nil; got != refuses {
				t.Errorf("%t that it is refused: %v", got, f.refused)
			}
		}
		stand := func() { // as it is when no clock in the process has run for that long
			const still = 10 * time.Second
			f.began, f.warned = f.began.Add(-still), f.warned.Add(-still)
		}
		piece(1000)
		piece(0)
		f.began = f.began.Add(-10 * time.Second) // nobody has looked yet
		look(false)
		time.Sleep(lookAgain / 2)
		look(false)
		stand()
		look(false)
		piece(1000) // it lay there
		piece(0)
		time.Sleep(lookAgain)
		look(false)
		if gone != 2000 {
			t.Fatalf("%d bytes have gone on", gone)
		}
		time.Sleep(lookAgain)
		look(true)
	})
}

// TestSlowMessagesLeaveTheirFlows: who begins messages by way of a node, as many as it has
// flows to the next one, and does not go on, holds nobody up for long.
func TestSlowMessagesLeaveTheirFlows(t *testing.T) {
	t.Parallel()
	last, lastAddr := listening(t, Config{})
	start(t, last, "sink", echo, Options{Allow: Anyone})
	middle, addr := listening(t, Config{Keepalive: time.Hour}) // the stranger answers nothing
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{lastAddr}}); err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, addr)
	for i := range maxFlows {
		s.beginLarge(t, Route{"on", lastAddr, "sink"}, Route{Address(fmt.Sprint("me", i))}, 32<<10)
	}
	eventually(t, func() bool {
		dry := 0
		for _, l := range middle.dialled() {
			l.mu.Lock()
			for _, f := range l.flows {
				if f.dry {
					dry++
				}
			}
			l.mu.Unlock()
		}
		return dry == maxFlows
	})
	wantEcho(t, newNode(t, Config{}), Route{addr, "on", lastAddr, "sink"}, "there")
}
