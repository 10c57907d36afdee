package node

import (
	"context"
	"encoding/binary"
	"time"
)

// maxFlows is how many flows a link has each way at most. Of those that are quiet
// the one that was so for longest makes room for another.
// A flow that stalls holds its credit at the receiving side: a conn 1 MiB at most.
const maxFlows = 256

// closeTime is how long one that is closed may take before another one is closed in
// its stead: what it has sent may wait for a mailbox that stalls.
const closeTime = 100 * time.Millisecond

// An outflow carries the messages of one sender along one route to the other node.
// Its fields are guarded by the link's lock, but for turn.
type outflow struct {
	key    string
	number uint32
	credit int
	used   uint64        // the link's clock, when it was last
	users  int           // who send, or wait to
	lent   bool          // there is credit for a message that was given up
	closed time.Time     // when CLOSE was sent; zero before
	moved  chan struct{} // closed when credit has come, or the link is over
	turn   chan struct{} // has a token while nobody sends
}

func (f *outflow) signalLocked() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// flow returns the outflow for m's routes, which has one user more then, and waits
// until there may be another one.
func (l *link) flow(ctx context.Context, m *Message) (_ *outflow, err error) {
	for {
		l.mu.Lock()
		f, wait := l.flowLocked(m)
		l.mu.Unlock()
		if f != nil {
			return f, nil
		}
		late := time.NewTimer(closeTime)
		select {
		case <-wait:
		case <-late.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-l.ctx.Done():
			err = l.lost()
		}
		late.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// flowLocked is flow that does not wait, but returns what to wait for.
func (l *link) flowLocked(m *Message) (*outflow, <-chan struct{}) {
	l.scratch = appendRoutes(l.scratch[:0], m.Onward, m.Return)
	f := l.flows[string(l.scratch)]
	switch {
	case f != nil && !f.closed.IsZero():
		return nil, l.turnover // what it has sent comes first
	case f == nil && len(l.flows) >= maxFlows:
		l.closeOldestLocked()
		return nil, l.turnover
	case f == nil && len(l.out) >= maxUnsent:
		return nil, l.room
	case f == nil:
		l.last++
		f = &outflow{key: string(l.scratch), number: l.last, credit: startCredit, moved: make(chan struct{}), turn: make(chan struct{}, 1)}
		f.turn <- struct{}{}
		l.flows[f.key], l.byNumber[f.number] = f, f
		l.out = append(frame{frameOpen, len(l.scratch), f.number}.append(l.out), l.scratch...)
	}
	l.clock++
	f.used = l.clock
	f.users++
	return f, nil
}

// closeOldestLocked closes the flow that was quiet for longest, unless one is closing
// already that is not late.
func (l *link) closeOldestLocked() {
	var oldest *outflow
	for _, f := range l.flows {
		switch {
		case !f.closed.IsZero() && time.Since(f.closed) < closeTime:
			return
		case !f.closed.IsZero() || f.users > 0:
		case oldest == nil || f.used < oldest.used:
			oldest = f
		}
	}
	if oldest == nil {
		return
	}
	l.closeLocked(oldest)
}

func (l *link) closeLocked(f *outflow) {
	f.closed = time.Now()
	l.out = frame{frameClose, 0, f.number}.append(l.out)
	l.poke()
}

// turnLocked wakes those who wait for a flow.
func (l *link) turnLocked() {
	close(l.turnover)
	l.turnover = make(chan struct{})
}

// leave ends what flow began.
func (l *link) leave(f *outflow) {
	l.mu.Lock()
	f.users--
	if f.users == 0 && f.lent {
		l.closeLocked(f)
	}
	if f.users == 0 && len(l.flows) >= maxFlows {
		l.turnLocked()
	}
	l.mu.Unlock()
}

// send sends m, and waits for its turn, credit and room. A message that ctx ends in
// the middle of is dropped at the other side.
func (l *link) send(ctx context.Context, m *Message) error {
	f, err := l.flow(ctx, m)
	if err != nil {
		return err
	}
	defer l.leave(f)
	select {
	case <-f.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ctx.Done():
		return l.lost()
	}
	defer func() { f.turn <- struct{}{} }()
	rest, first := m.Body, true
	for first || len(rest) > 0 {
		n, moved := l.piece(f, m, rest, first)
		if n < 0 {
			select {
			case <-moved:
			case <-ctx.Done():
				return l.cut(f, first, context.Cause(ctx))
			case <-l.ctx.Done():
				return l.lost()
			}
			continue
		}
		rest, first = rest[n:], false
	}
	return nil
}

// cut tells the other side that the rest of a message does not come. The flow ends, for
// it may have a large part of that one's budget.
func (l *link) cut(f *outflow, first bool, err error) error {
	if !first {
		l.control(frameDrop, f.number, nil)
		l.mu.Lock()
		f.lent = true
		l.mu.Unlock()
	}
	return err
}

// piece puts down as much of rest as there is credit for, and returns how much that
// was; -1 means that there is too little, or no room, and what to wait for.
func (l *link) piece(f *outflow, m *Message, rest []byte, first bool) (n int, moved <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return -1, f.moved
	}
	if len(l.out) >= maxUnsent {
		return -1, l.room
	}
	before := 0
	if first {
		before = messageHead
	}
	if f.credit < before || f.credit == 0 {
		return -1, f.moved
	}
	n = min(len(rest), f.credit-before, maxData-before)
	if n == 0 && len(rest) > 0 && !first {
		return -1, f.moved
	}
	l.out = frame{frameData, before + n, f.number}.append(l.out)
	if first {
		l.out = l.head(m).append(l.out)
	}
	l.out = append(l.out, rest[:n]...)
	f.credit -= before + n
	l.poke()
	return n, nil
}

func (l *link) head(m *Message) head {
	h := head{kind: m.kind, hops: m.hops, length: len(m.Body), id: m.id}
	if m.From.Outside {
		h.flags = flagCarried
	}
	return h
}

// try is send that does not wait: false says that it would have to.
func (l *link) try(m *Message) (bool, error) {
	if l.ctx.Err() != nil {
		return false, l.lost()
	}
	l.mu.Lock()
	f, _ := l.flowLocked(m)
	l.mu.Unlock()
	if f == nil {
		return false, nil
	}
	defer l.leave(f)
	if messageHead+len(m.Body) > maxData {
		return false, nil
	}
	select {
	case <-f.turn:
	default:
		return false, nil
	}
	defer func() { f.turn <- struct{}{} }()
	l.mu.Lock()
	enough := f.credit >= messageHead+len(m.Body)
	l.mu.Unlock()
	if !enough {
		return false, nil
	}
	n, _ := l.piece(f, m, m.Body, true) // only the turn's holder takes credit away
	return n >= 0, nil
}

// credited takes the other side's word that more may be sent.
func (l *link) credited(number uint32, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.byNumber[number]
	if f == nil {
		return wireError("credit for flow %d, which there is not", number)
	}
	more := binary.BigEndian.Uint32(body)
	if more == 0 || more > 2*MaxBody || f.credit+int(more) > 4*MaxBody {
		return wireError("credit of %d bytes", more)
	}
	f.credit += int(more)
	f.signalLocked()
	return nil
}

// over takes the other side's word that all of a closed flow is delivered.
func (l *link) over(number uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.byNumber[number]
	if f == nil || f.closed.IsZero() {
		return wireError("the end of flow %d, which is not asked for", number)
	}
	delete(l.byNumber, number)
	delete(l.flows, f.key)
	l.turnLocked()
	return nil
}
