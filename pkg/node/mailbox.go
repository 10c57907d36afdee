package node

import (
	"container/list"
	"context"
	"sync"
)

// A mailbox holds the messages that wait for a worker, in order. It is bounded; who
// comes when it is full waits in line, with the message in hand.
type mailbox struct {
	most, mostBytes int
	over            <-chan struct{} // closed when the node ends, which the worker may take longer for; nil: never

	mu      sync.Mutex
	queue   []*Message // a ring of most places, made at the first message
	first   int
	held    int
	bytes   int
	waiting list.List     // of *waiter
	closed  error         // why no more is taken
	filled  chan struct{} // has a token when there may be something to take
}

// A waiter is a sender that the mailbox has no room for.
type waiter struct {
	m    *Message
	wait *waiting   // for this place; nil where no worker is held up
	done chan error // buffered: nil once m is in, or why it never will be
}

func newMailbox(most, mostBytes int) *mailbox {
	return &mailbox{most: most, mostBytes: mostBytes, filled: make(chan struct{}, 1)}
}

// roomLocked reports whether there is room for m. One that is larger than all of
// the mailbox has it when the mailbox is empty.
func (b *mailbox) roomLocked(m *Message) bool {
	return b.held == 0 || b.held < b.most && b.bytes+m.size() <= b.mostBytes
}

// insertLocked puts m in. The error: it has come by a link that was replaced.
func (b *mailbox) insertLocked(m *Message) error {
	if err := m.land(); err != nil {
		return err
	}
	if b.queue == nil {
		b.queue = make([]*Message, b.most)
	}
	b.queue[(b.first+b.held)%b.most] = m
	b.held++
	b.bytes += m.size()
	select {
	case b.filled <- struct{}{}:
	default:
	}
	return nil
}

// try puts m in if there is room for it and nobody waits.
func (b *mailbox) try(m *Message) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tryLocked(m)
}

func (b *mailbox) tryLocked(m *Message) (bool, error) {
	if b.closed != nil {
		return false, b.closed
	}
	if b.waiting.Len() > 0 || !b.roomLocked(m) {
		return false, nil
	}
	err := b.insertLocked(m)
	return err == nil, err
}

// put puts m in, and waits for its turn until ctx, or the node, ends. wait, which may be
// nil, is over when m is in.
func (b *mailbox) put(ctx context.Context, m *Message, wait *waiting) error {
	b.mu.Lock()
	if ok, err := b.tryLocked(m); ok || err != nil {
		b.mu.Unlock()
		return err
	}
	w := &waiter{m: m, wait: wait, done: make(chan error, 1)}
	place := b.waiting.PushBack(w)
	b.mu.Unlock()
	var late error
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		late = context.Cause(ctx)
	case <-b.over:
		late = ErrClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case err := <-w.done: // just now
		return err
	default:
		b.waiting.Remove(place)
		b.admitLocked() // those behind may fit
		return late
	}
}

// take returns the next message, and waits for one until ctx ends. False: there is
// none, and none will come.
func (b *mailbox) take(ctx context.Context) (*Message, bool) {
	for {
		b.mu.Lock()
		if b.held > 0 {
			m := b.removeLocked()
			b.admitLocked()
			b.mu.Unlock()
			return m, true
		}
		over := b.closed != nil
		b.mu.Unlock()
		if over {
			return nil, false
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (b *mailbox) removeLocked() *Message {
	m := b.queue[b.first]
	b.queue[b.first] = nil
	b.first = (b.first + 1) % b.most
	b.held--
	b.bytes -= m.size()
	return m
}

// admitLocked lets in whom there is room for now, in the order of their coming.
func (b *mailbox) admitLocked() {
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		w := e.Value.(*waiter)
		if !b.roomLocked(w.m) {
			return
		}
		b.waiting.Remove(e)
		err := b.insertLocked(w.m)
		w.wait.end() // before the worker here can look for circles
		w.done <- err
	}
}

// close takes no more, and returns what was not taken. Those who wait get err.
func (b *mailbox) close(err error) (left []*Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return nil
	}
	b.closed = err
	for b.held > 0 {
		left = append(left, b.removeLocked())
	}
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		b.waiting.Remove(e).(*waiter).done <- err
	}
	select {
	case b.filled <- struct{}{}:
	default:
	}
	return left
}
