package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestAllLossesOfABurst: of requests that are all refused at once each one hears, though
// there is no room for as many words at a time, next door and by way of a node between.
func TestAllLossesOfABurst(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{})
	start(t, b, "private", echo, Options{})
	middle, middleAddr := listening(t, Config{})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{addr}}); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, Config{})
	for _, to := range []Route{{addr, "private"}, {middleAddr, "on", addr, "private"}} {
		const burst = 500
		ctx := inTime(t)
		var wg sync.WaitGroup
		var late atomic.Int64
		began := time.Now()
		for range burst {
			wg.Go(func() {
				_, err := a.Request(ctx, to, nil)
				var de *DeliveryError
				if !errors.As(err, &de) || de.Code != code.WorkerDenied {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if n := late.Load(); n > 0 {
			t.Errorf("over %s %d of %d have not heard why, after %s", to, n, burst, time.Since(began))
		}
	}
}

// TestStrangersWords: who sends much that is refused, and does not take what is said of
// that, has a part of the room for words, for a while, and none in the end; others hear.
func TestStrangersWords(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the node is closed
	deaf := &deafWorker{release: release}
	start(t, n, "deaf", deaf, Options{Mailbox: 1})
	start(t, n, "grumpy", WorkerFunc(func(context.Context, *Self, *Message) error { return errors.New("no") }), Options{})
	word := func(to Address) {
		n.tell(&Message{Return: Route{to}}, failure(code.WorkerFailed, "", "no"))
	}
	for range 2 * maxWordsPlace {
		word("deaf")
	}
	n.words.mu.Lock()
	if n.words.all > maxWordsPlace || len(n.words.lines) > 1 {
		t.Errorf("%d words wait in %d lines", n.words.all, len(n.words.lines))
	}
	n.words.mu.Unlock()
	_, err := n.Request(inTime(t), Route{"grumpy"}, nil)
	wantCode(t, err, code.WorkerFailed)
	eventually(t, func() bool {
		n.words.mu.Lock()
		defer n.words.mu.Unlock()
		return n.words.all == 0 && len(n.words.lines) == 0 && len(n.words.goTo) == 0
	})
}

// TestWordsAreBounded: one place has a part of all words that may wait, conns of whom nobody
// knows another part together, and others the rest.
func TestWordsAreBounded(t *testing.T) {
	var w words
	stranger := wordPlace{"~conn-stranger", true}
	for i := range 2 * maxWordsPlace {
		if got, want := w.takeLocked(stranger), i < maxWordsPlace; got != want {
			t.Fatalf("word %d of one place: %t", i, got)
		}
	}
	for i := range 2 * maxWords {
		if got, want := w.takeLocked(wordPlace{Address(fmt.Sprint("~conn-", i)), true}), i < maxWordsConns-maxWordsPlace; got != want {
			t.Fatalf("word %d of other conns: %t", i, got)
		}
	}
	for i := range 2 * maxWords {
		if got, want := w.takeLocked(wordPlace{Address(fmt.Sprint("worker", i)), false}), i < maxWords-maxWordsConns; got != want {
			t.Fatalf("word %d of others: %t", i, got)
		}
	}
	w.giveLocked(stranger, maxWordsPlace)
	if !w.takeLocked(wordPlace{"~conn-0", true}) || w.all != maxWords-maxWordsPlace+1 || w.conns != maxWordsConns-maxWordsPlace+1 || w.goTo[stranger] != 0 {
		t.Errorf("%d words wait, %d for conns, after the stranger's are over", w.all, w.conns)
	}
}

// TestWordsByAHop: words that go back by a hop count as those of the conn or worker that
// they go on to behind it.
func TestWordsByAHop(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "teller", &teller{}, Options{})
	if err := n.StartHop("hop", Hop{}); err != nil {
		t.Fatal(err)
	}
	unknown, known := newInflow(n, nil).link, newInflow(n, nil).link
	from := peerOrigin(t)
	known.from.Store(&from)
	for _, l := range []*link{unknown, known} {
		if err := n.add(l.address, l); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		back Route
		want wordPlace
	}{
		{Route{"teller"}, wordPlace{"teller", false}},
		{Route{"hop", "teller"}, wordPlace{"teller", false}},
		{Route{unknown.address, "me"}, wordPlace{unknown.address, true}},
		{Route{"hop", unknown.address, "me"}, wordPlace{unknown.address, true}},
		{Route{"hop", known.address, "me"}, wordPlace{known.address, false}},
		{Route{"hop", "nobody"}, wordPlace{}},
	} {
		word := (&Message{Return: c.back}).lost(failure(code.WorkerFailed, "", "no"))
		if got, ok := n.wordPlace(word); got != c.want || ok != (c.want != wordPlace{}) {
			t.Errorf("by %s: %v, %t; want %v", c.back, got, ok, c.want)
		}
	}
}

// A deafWorker hears of a loss, and stands.
type deafWorker struct{ release chan struct{} }

func (w *deafWorker) Handle(context.Context, *Self, *Message) error { return nil }

func (w *deafWorker) HandleLoss(context.Context, *Self, *DeliveryError) { <-w.release }

// TestWordsWhenAllStoodStill: nor does it give up words of losses because there was no room
// for them in a time in which it could not read that there is; but it does when there is none
// afterwards, either.
func TestWordsWhenAllStoodStill(t *testing.T) {
	for name, room := range map[string]bool{"room": true, "no room": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, Config{})
				release := stallFull(t, n)
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
	stallFull(t, b)
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
