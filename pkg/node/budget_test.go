package node

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestBudgetComesBack: what flows had of the budget is there again when their conn has
// ended, whatever waited.
func TestBudgetComesBack(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, b, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Allow: Anyone, Mailbox: 1})
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
	b := newBudget(0)
	for b.grow(64 << 10) {
	}
	granted := false
	b.take(MaxBody, func() { granted = true })
	if !granted {
		t.Errorf("a message of %d bytes waits for windows that have %d", MaxBody, b.grown)
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
	_ = nc.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := nc.Write(preamble[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, len(preamble))); err != nil {
		t.Fatal(err)
	}
	var scratch [frameHead]byte
	for _, typ := range []byte{frameOpen, frameData, frameDrop, frameClose} {
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
	b.budget.take(MaxBody, func() {})
	s := newStranger(t, addr)
	s.flows++
	routes := appendRoutes(nil, Route{"x"}, nil)
	f := append(frame{frameOpen, len(routes), 1}.append(nil), routes...)
	f = head{hops: 9, length: 1 << 20}.append(frame{frameData, startCredit, 1}.append(f))
	s.write(t, append(f, make([]byte, startCredit-messageHead)...))
	line := func() int { b.budget.mu.Lock(); defer b.budget.mu.Unlock(); return len(b.budget.line) }
	eventually(t, func() bool { return line() == 1 })
	s.write(t, frame{frameDrop, 0, 1}.append(nil))
	for end := time.Now().Add(3 * time.Second); line() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was dropped waits for credit")
		}
	}
}
