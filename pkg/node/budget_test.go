package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/channel"
)

// TestBudgetComesBack: what flows had of the budget is there again when their conn has
// ended, whatever waited.
func TestBudgetComesBack(t *testing.T) {
	b, addr := listening(t, Config{})
	stall(t, b, 1)
	for range 5 {
		s := newStranger(t, addr)
		for range 50 {
			s.send(t, Route{"stalled"}, nil, head{hops: 9}, string(make([]byte, startCredit-messageHead)))
		}
		// A part of a message that is larger.
		s.flows++
		routes := appendRoutes(nil, Route{"stalled"}, nil)
		f := append(frame{frameOpen, len(routes), s.flows}.append(nil), routes...)
		f = head{hops: 9, length: 1 << 20}.append(frame{frameData, startCredit, s.flows}.append(f))
		s.write(t, append(f, make([]byte, startCredit-messageHead)...))
		eventually(t, func() bool { left, _ := b.budget.state(); return left < b.budget.all })
		_ = s.Close()
		eventually(t, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.table) == 2 // the requests and the worker
		})
		if left, grown := b.budget.state(); left != b.cfg.Buffer || grown != 0 {
			t.Fatalf("%d of %d bytes are left, %d taken by windows", left, b.cfg.Buffer, grown)
		}
	}
}

func (b *budget) state() (left, grown int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left, b.grown
}

// TestLargestMessageFits: windows that have grown leave room for the largest message.
func TestLargestMessageFits(t *testing.T) {
	for _, size := range []int{0, MaxBody + MaxBody/2, 2 * MaxBody, 64 << 20} {
		for _, from := range []Origin{{Outside: true}, peerOrigin(t)} {
			b := newBudget(size, patience)
			defer b.close()
			for range 2000 {
				b.grow(b.account(from), 64<<10)
			}
			granted := false
			b.take(&claim{account: b.account(from), n: MaxBody, grant: func() { granted = true }})
			if !granted {
				t.Errorf("of %d bytes, a message of %d waits for windows that have %d", b.all, MaxBody, b.grown)
			}
		}
	}
}

// TestDropGivesBack: a message that is given up in the middle leaves nothing of the
// other side's budget taken.
func TestDropGivesBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := newNode(t, Config{})
	sent := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { sent <- a.Send(ctx, Route{Addr(ln), "x"}, make([]byte, 1<<20)) }()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(hello{}.append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := readHello(nc); err != nil {
		t.Fatal(err)
	}
	var scratch [frameHead]byte
	for _, typ := range []byte{frameOpen, frameData, frameDrop} {
		f, err := readFrame(nc, &scratch)
		if err != nil || f.typ != typ {
			t.Fatalf("got a frame of type %d, %v; want %d", f.typ, err, typ)
		}
		_, _ = io.CopyN(io.Discard, nc, int64(f.length))
		if typ == frameData {
			cancel()
			if err := <-sent; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
	}
}

// TestDropInLine: nor does it stay in line for it.
func TestDropInLine(t *testing.T) {
	b, addr := listening(t, Config{Buffer: 1})
	start(t, b, "x", echo, Options{Allow: Anyone})
	b.budget.take(&claim{account: b.budget.account(Origin{Outside: true}), n: MaxBody, grant: func() {}, giveWay: func() {}})
	s := newStranger(t, addr)
	s.flows++
	routes := appendRoutes(nil, Route{"x"}, nil)
	f := append(frame{frameOpen, len(routes), 1}.append(nil), routes...)
	f = head{hops: 9, length: 1 << 20}.append(frame{frameData, startCredit, 1}.append(f))
	s.write(t, append(f, make([]byte, startCredit-messageHead)...))
	line := func() int { b.budget.mu.Lock(); defer b.budget.mu.Unlock(); return b.budget.waiting }
	eventually(t, func() bool { return line() == 1 })
	s.write(t, frame{frameDrop, 0, 1}.append(nil))
	eventually(t, func() bool { return line() == 0 }) // else what was dropped waits for credit
}

// peerOrigin is that of messages from a peer of a channel.
func peerOrigin(t testing.TB) Origin {
	t.Helper()
	_, id := newLocal(t)
	return Origin{Outside: true, Peer: &channel.Peer{Identifier: id}}
}

// TestBudgetTurns: those who wait are granted room in turn, an account's after
// another's, and strangers beside peers, however many claims somebody has.
func TestBudgetTurns(t *testing.T) {
	b := newBudget(64<<20, patience)
	defer b.close()
	stranger := Origin{Outside: true}
	full := &claim{account: b.account(peerOrigin(t)), n: 64 << 20, grant: func() {}}
	b.share = 64 << 20
	b.take(full)
	b.share = 16 << 20
	var got []string
	claims := map[string]*claim{}
	take := func(name string, a *account, n int) {
		c := &claim{account: a, n: n, grant: func() { got = append(got, name) }}
		claims[name] = c
		b.take(c)
	}
	greedy, modest, peer := b.account(stranger), b.account(stranger), b.account(peerOrigin(t))
	for i := range 3 {
		take(fmt.Sprint("greedy ", i), greedy, 16<<20)
	}
	take("modest", modest, 1<<20)
	take("peer", peer, 1<<20)
	take("peer again", peer, 16<<20)
	if len(got) != 0 {
		t.Fatalf("%q have room where there is none", got)
	}
	b.release(full)
	// The second of the greedy one's is beyond its share; what the peer has first, too.
	want := []string{"greedy 0", "peer", "modest"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	b.release(claims["peer"])
	b.release(claims["greedy 1"]) // while it waits
	b.release(claims["greedy 0"])
	if want := []string{"peer again", "greedy 2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestGiveWay: what holds room gives way while somebody waits for it, the oldest
// first, if it comes too slowly or finds no mailbox; and not before.
func TestGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(0, 30*time.Second)
		defer b.close()
		stranger := b.account(Origin{Outside: true})
		took := map[string]time.Duration{}
		began := time.Now()
		var mu sync.Mutex
		hold := func(name string, n int) *claim {
			c := &claim{account: stranger, n: n, grant: func() { mu.Lock(); defer mu.Unlock() }} // in this order for whoever locks it next
			c.giveWay = func() {
				mu.Lock()
				took[name] = time.Since(began)
				mu.Unlock()
				b.release(c)
			}
			b.take(c)
			return c
		}
		const half = MaxBody / 2
		steady, silent := hold("steady", half), hold("silent", half)
		_ = silent
		stop := make(chan struct{})
		go func() {
			for s := range 10 {
				steady.came(2*slowest, s == 9)
				time.Sleep(time.Second)
			}
			close(stop)
		}()
		time.Sleep(10 * time.Second)
		if len(took) > 0 {
			t.Errorf("%v have given way to nobody", took)
		}
		<-stop
		first := hold("first", half)
		time.Sleep(time.Second)
		mu.Lock()
		if d, ok := took["silent"]; !ok || d > 11*time.Second || len(took) != 1 {
			t.Errorf("%v have given way", took)
		}
		mu.Unlock()
		first.came(half, true)
		hold("second", half)
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		// It had come whole at 9 s, and waited for its mailbox since.
		if d, ok := took["steady"]; !ok || d < 39*time.Second || d > 40*time.Second || len(took) != 2 {
			t.Errorf("%v have given way", took)
		}
	})
}

// TestGiveWayWhenAllStoodStill: a node that stood still itself, as on a machine that has
// too much to do, takes nobody for slow whose bytes it could not have read.
func TestGiveWayWhenAllStoodStill(t *testing.T) {
	for name, later := range map[string]bool{"while somebody waited": false, "before anybody did": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(0, 30*time.Second)
				defer b.close()
				stranger := b.account(Origin{Outside: true})
				gave := make(chan struct{}, 1)
				c := &claim{account: stranger, n: MaxBody, grant: func() {}, giveWay: func() { gave <- struct{}{} }}
				other := &claim{account: stranger, n: MaxBody, grant: func() {}, giveWay: func() {}}
				b.take(c)
				began := time.Now()
				if !later {
					b.take(other)
				}
				time.Sleep(slowGrace / 4) // not when somebody looks
				const still = 10 * time.Second
				b.mu.Lock() // as it is when no clock in the process has run for that long
				b.set, b.due, c.since = b.set.Add(-still), b.due.Add(-still), c.since.Add(-still)
				b.mu.Unlock()
				if later {
					b.take(other)
				}
				<-gave
				if took := time.Since(began); took < slowGrace || took > slowGrace+time.Second {
					t.Errorf("it gave way after %s, want about %s", took, slowGrace)
				}
			})
		})
	}
}

// TestNobodyIsWatched: a budget of which nothing is held has no timer.
func TestNobodyIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(0, patience)
		defer b.close()
		stranger := b.account(Origin{Outside: true})
		var claims []*claim
		for range 2 { // one waits
			c := &claim{account: stranger, n: MaxBody, grant: func() {}, giveWay: func() {}}
			claims = append(claims, c)
			b.take(c)
		}
		for _, c := range claims {
			b.mu.Lock()
			if b.watch == nil {
				t.Error("nobody looks")
			}
			b.mu.Unlock()
			b.release(c)
			time.Sleep(time.Minute)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.watch != nil {
			t.Errorf("somebody looks at %s", time.Until(b.due))
		}
	})
}

// TestStoodStillOnce: the time in which all stood still counts for nobody twice: not for a
// message that has come whole since, nor for one whose room was granted since.
func TestStoodStillOnce(t *testing.T) {
	for _, since := range []string{"whole", "granted"} {
		t.Run(since, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const wait = 30 * time.Second
				b := newBudget(0, wait)
				defer b.close()
				stranger := b.account(Origin{Outside: true})
				gave := make(chan struct{}, 1)
				take := func() *claim {
					c := &claim{account: stranger, n: MaxBody, grant: func() {}, giveWay: func() { gave <- struct{}{} }}
					b.take(c)
					return c
				}
				first := take()
				take()
				take()
				time.Sleep(lookAgain / 2)
				const still = 10 * time.Second
				b.mu.Lock() // as it is when no clock in the process has run for that long
				b.set, b.due, first.since = b.set.Add(-still), b.due.Add(-still), first.since.Add(-still)
				b.mu.Unlock()
				want := slowGrace
				if since == "whole" {
					want = wait
					time.Sleep(lookAgain) // it is noticed
					first.came(MaxBody, true)
				} else {
					first.release() // before it is
				}
				began := time.Now()
				<-gave
				if took := time.Since(began); took < want || took > want+time.Second {
					t.Errorf("it gave way after %s, want about %s", took, want)
				}
			})
		})
	}
}

// TestBudgetHolds: whatever is taken and given back, in whatever order, nobody has more
// than their share, nothing gets lost, and nobody waits for nothing.
func TestBudgetHolds(t *testing.T) {
	var origins []Origin
	for range 3 {
		origins = append(origins, Origin{Outside: true}, peerOrigin(t))
	}
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget(rapid.IntRange(0, 96<<20).Draw(t, "size"), patience)
		defer b.close()
		var accounts []*account
		for _, o := range origins {
			accounts = append(accounts, b.account(o))
		}
		granted := map[*claim]bool{}
		var claims []*claim
		windows := map[*account]int{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				c := &claim{account: rapid.SampledFrom(accounts).Draw(t, "account"), n: rapid.IntRange(1, MaxBody).Draw(t, "n")}
				c.grant = func() { granted[c] = true }
				c.giveWay = func() {}
				claims = append(claims, c)
				b.take(c)
			},
			"release": func(t *rapid.T) {
				if len(claims) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(claims)-1).Draw(t, "claim")
				c := claims[i]
				claims = slices.Delete(claims, i, i+1)
				b.release(c)
				b.release(c) // twice is once
				delete(granted, c)
			},
			"grow": func(t *rapid.T) {
				a, n := rapid.SampledFrom(accounts).Draw(t, "account"), 4096<<rapid.IntRange(0, 8).Draw(t, "window")
				if b.grow(a, n) {
					windows[a] += n
				}
			},
			"shrink": func(t *rapid.T) {
				a := rapid.SampledFrom(accounts).Draw(t, "account")
				b.shrink(a, windows[a])
				windows[a] = 0
			},
			"": func(t *rapid.T) { checkBudget(t, b, accounts, claims, granted, windows) },
		})
		// Who waits is served when the others are done, in the end all.
		for a, n := range windows {
			b.shrink(a, n)
		}
		for len(granted) > 0 {
			for c := range granted {
				b.release(c)
				delete(granted, c)
				claims = slices.DeleteFunc(claims, func(o *claim) bool { return o == c })
			}
		}
		if len(claims) > 0 || b.left != b.all || b.waiting != 0 {
			t.Fatalf("%d claims wait, %d of %d bytes are left", len(claims), b.left, b.all)
		}
	})
}

func checkBudget(t *rapid.T, b *budget, accounts []*account, claims []*claim, granted map[*claim]bool, windows map[*account]int) {
	taken, grown := 0, 0
	perClass := map[*class]int{}
	perAccount := map[*account]int{}
	for _, c := range claims {
		if granted[c] {
			taken += c.n
			perAccount[c.account] += c.n
			perClass[c.account.class] += c.n
		}
	}
	for a, n := range windows {
		grown += n
		perClass[a.class] += n
	}
	if b.left != b.all-taken-grown || b.left < 0 || b.waiting != len(claims)-len(granted) {
		t.Fatalf("%d of %d bytes are left, where %d and %d are taken; %d wait", b.left, b.all, taken, grown, b.waiting)
	}
	for a, n := range perAccount {
		if n > b.share {
			t.Fatalf("an account has %d bytes, of which it may have %d (%v)", n, b.share, a.peer)
		}
	}
	if n := perClass[&b.classes[strangers]]; n > max(b.all/2, MaxBody) {
		t.Fatalf("strangers have %d of %d bytes", n, b.all)
	}
	if len(claims) > 0 && len(granted) == 0 { // windows leave room for the largest message
		t.Fatalf("%d claims wait, and nobody has anything", len(claims))
	}
}

// TestNoMoreThanMissing: where a little room is missing, a little gives way: of the account
// whose share that is of, or of all.
func TestNoMoreThanMissing(t *testing.T) {
	const part = MaxBody / 16
	for name, x := range map[string]struct {
		size, holds, wants int
		same               bool // account
	}{
		"of all":       {0, 8, 9, false},
		"of the share": {64 << 20, 15, 2, true},
		"of the class": {32 << 20, 15, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(x.size, patience)
				defer b.close()
				holder, waits := b.account(Origin{Outside: true}), b.account(Origin{Outside: true})
				if x.same {
					waits = holder
				}
				var gave atomic.Int64
				for range x.holds {
					c := &claim{account: holder, n: part, grant: func() {}}
					c.giveWay = func() {
						gave.Add(1)
						c.release()
					}
					b.take(c)
				}
				time.Sleep(2 * slowGrace)
				granted := make(chan struct{})
				b.take(&claim{account: waits, n: x.wants * part, grant: func() { close(granted) }, giveWay: func() {}})
				<-granted
				synctest.Wait()
				if got := gave.Load(); got != 1 {
					t.Errorf("%d of %d have given way", got, x.holds)
				}
			})
		})
	}
}

// TestManySmallGiveWay: room that is held in many small parts, of which none comes, is there
// for a large message as soon as one large part would be.
func TestManySmallGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(0, patience)
		defer b.close()
		holder, other := b.account(Origin{Outside: true}), b.account(Origin{Outside: true})
		const parts = 1024
		gave := 0
		for range parts {
			c := &claim{account: holder, n: MaxBody / parts, grant: func() {}}
			c.giveWay = func() {
				gave++
				c.release()
			}
			b.take(c)
		}
		granted := make(chan struct{})
		began := time.Now()
		b.take(&claim{account: other, n: MaxBody / 2, grant: func() { close(granted) }, giveWay: func() {}})
		<-granted
		if took := time.Since(began); took > 2*slowGrace || gave != parts/2 {
			t.Errorf("it has waited for %s, and %d of %d have given way", took, gave, parts)
		}
	})
}
