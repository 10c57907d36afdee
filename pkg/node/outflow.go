package node

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
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
	back   Route // of all its messages, as on this node
	credit int
	window int           // what may be sent and not delivered
	used   uint64        // the link's clock, when it was last
	users  int           // who send, or wait to
	closed time.Time     // when CLOSE was sent; zero before
	moved  chan struct{} // closed when credit has come, or the link is over
	turn   chan struct{} // has a token while nobody sends

	// Of the message that is under way.
	count   uint32    // its number
	busy    bool      // something of it was sent
	sent    int       // bytes of the body
	charged int       // bytes that have taken credit
	granted bool      // the rest takes none
	began   time.Time // of one that goes on as it comes: when it was begun, and later by as long as it stood
	stands  time.Time // since when what has come waits for credit or room here; zero: it does not
	dry     bool      // of such a one: all that has come was sent
	warned  time.Time // when it was seen to be slow, and nothing has come since; zero: it was not
	refused *DeliveryError

	// unsure are the messages that the other side has not said to be delivered, in order,
	// where there is somebody to be told of a loss.
	unsure  []unsure
	settled int // bytes that were delivered, but not all of the first one's
}

// An unsure message is sent and not known to be delivered.
type unsure struct {
	charged int
	kind    kind
	id      uint64
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
	l.scratch = appendKey(l.scratch[:0], m)
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
		f = l.openLocked(m)
	}
	l.clock++
	f.used = l.clock
	f.users++
	return f, nil
}

// openLocked begins a flow, whose key is in scratch.
func (l *link) openLocked(m *Message) *outflow {
	l.last++
	for l.last == 0 || l.byNumber[l.last] != nil { // round once all were given
		l.last++
	}
	f := &outflow{
		key: string(l.scratch), number: l.last, back: m.Return,
		credit: startCredit, window: startCredit, moved: make(chan struct{}), turn: make(chan struct{}, 1),
	}
	f.turn <- struct{}{}
	l.flows[f.key], l.byNumber[f.number] = f, f
	l.scratch = appendRoutes(l.scratch[:0], m.Onward, m.Return)
	l.out = append(frame{frameOpen, len(l.scratch), f.number}.append(l.out), l.scratch...)
	return f
}

// appendKey appends what says whose messages m is one of, and along which route: also
// when its sender's node has come by another conn in the meantime, at the same address.
func appendKey(b []byte, m *Message) []byte {
	if m.via != nil {
		b = append(b, m.via.address...)
	}
	return appendRoutes(append(b, 0), m.Onward, m.Return)
}

// closeOldestLocked closes the flow that was quiet for longest, unless one is closing
// already that is not late. Where all are in use, the slowest message that only passes
// this node gives way.
func (l *link) closeOldestLocked() {
	var oldest, slow *outflow
	for _, f := range l.flows {
		switch {
		case !f.closed.IsZero():
			if time.Since(f.closed) < closeTime {
				return
			}
		case f.users > 0:
			if f.seenSlow() && (slow == nil || f.began.Before(slow.began)) {
				slow = f
			}
		case oldest == nil || f.used < oldest.used:
			oldest = f
		}
	}
	switch {
	case oldest != nil:
		l.closeLocked(oldest)
	case slow != nil:
		slow.refused = failure(code.Limit, "", "the message came too slowly, and others wait for its flow")
		slow.signalLocked()
	}
}

// slow reports whether what is sent waits for the rest of a message that comes more slowly
// than others have to wait for.
func (f *outflow) slow() bool {
	age := time.Since(f.began)
	return f.refused == nil && f.dry && age > slowGrace && f.sent < int((age-slowGrace).Seconds()*slowest)
}

// seenSlow reports whether f is slow, and was already a while ago: when this process has
// stood still, what has come meanwhile is read first.
func (f *outflow) seenSlow() bool {
	if !f.slow() {
		return false
	}
	since := time.Since(f.warned)
	if f.warned.IsZero() || since > 10*lookAgain { // it may have stood still since then
		f.warned = time.Now()
		return false
	}
	return since >= lookAgain
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
	for sent, begun := 0, false; !begun || sent < m.length(); {
		rest, more, err := m.rest(sent)
		if err != nil {
			return l.cut(f, err)
		}
		n, moved, err := l.piece(f, m, rest)
		if err != nil {
			return l.cut(f, err)
		}
		if n >= 0 {
			if m.stream != nil {
				m.stream.gone(n)
			}
			sent, begun = sent+n, true
			continue
		}
		// Both: the other side may refuse what does not come, and who sends may give up what
		// has no credit.
		select {
		case <-more:
		case <-moved:
		case <-ctx.Done():
			return l.cut(f, context.Cause(ctx))
		case <-l.ctx.Done():
			return l.lost()
		}
	}
	return nil
}

// rest returns what there is of m's body behind what was sent, and what says that there is
// more; nil where that is all.
func (m *Message) rest(sent int) (b []byte, more <-chan struct{}, err error) {
	if m.stream != nil {
		return m.stream.next()
	}
	return m.Body[sent:], nil, nil
}

// cut tells the other side that the rest of a message does not come.
func (l *link) cut(f *outflow, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.busy {
		l.out = frame{frameDrop, 0, f.number}.append(l.out)
		f.finishLocked(failed, 0)
		l.poke()
	}
	return err
}

// piece puts down as much of rest, which m's body goes on with, as there is credit for,
// and returns how much that was; -1 means that there is too little of either, or no room,
// and what to wait for. An error: the other side does not want the message, or the link that
// it has come by was replaced.
func (l *link) piece(f *outflow, m *Message, rest []byte) (n int, moved <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case f.busy && f.refused != nil:
		return -1, nil, f.refused
	case l.ctx.Err() != nil:
		return -1, f.moved, nil
	case f.busy && len(rest) == 0:
		f.dry = true
		return -1, f.moved, nil
	case len(l.out) >= maxUnsent:
		f.standLocked()
		return -1, l.room, nil
	}
	before, credit := 0, f.credit
	if !f.busy {
		before = messageHead
	}
	if f.granted {
		credit = maxData
	}
	if credit < before || credit == 0 {
		f.standLocked()
		return -1, f.moved, nil
	}
	if !f.busy {
		if err := m.land(); err != nil {
			return -1, nil, err
		}
	}
	n = min(len(rest), credit-before, maxData-before)
	l.out = frame{frameData, before + n, f.number}.append(l.out)
	if !f.busy {
		l.out = l.head(m).append(l.out)
	}
	l.out = append(l.out, rest[:n]...)
	if !f.granted {
		f.credit -= before + n
		f.charged += before + n
	}
	f.goOnLocked()
	if !f.busy && m.stream != nil {
		f.began = time.Now()
	}
	f.busy, f.dry = true, false
	if f.sent += n; f.sent == m.length() {
		f.finishLocked(m.kind, m.id)
	}
	l.poke()
	return n, nil, nil
}

// standLocked notes that it is this side which holds up what has come.
func (f *outflow) standLocked() {
	f.dry = false
	if f.stands.IsZero() {
		f.stands = time.Now()
	}
}

// goOnLocked notes that the message goes on. The time that it stood does not count as its
// own.
func (f *outflow) goOnLocked() {
	f.warned = time.Time{}
	if !f.stands.IsZero() {
		f.began = f.began.Add(time.Since(f.stands))
		f.stands = time.Time{}
	}
}

// finishLocked ends the message that is under way. It is not known to be delivered.
func (f *outflow) finishLocked(k kind, id uint64) {
	if len(f.back) > 0 {
		f.unsure = append(f.unsure, unsure{f.charged, k, id})
		f.surerLocked(0)
	}
	f.count++
	f.busy, f.sent, f.charged, f.granted, f.refused = false, 0, 0, false, nil
	f.dry, f.stands = false, time.Time{}
}

// surerLocked counts n bytes more as delivered.
func (f *outflow) surerLocked(n int) {
	if len(f.back) == 0 {
		return
	}
	f.settled += n
	i := 0
	for ; i < len(f.unsure) && f.unsure[i].charged <= f.settled; i++ {
		f.settled -= f.unsure[i].charged
	}
	if f.unsure = f.unsure[i:]; len(f.unsure) == 0 {
		f.unsure = nil
	}
}

func (l *link) head(m *Message) head {
	h := head{kind: m.kind, hops: m.hops, length: m.length(), id: m.id}
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
	if m.stream != nil || messageHead+len(m.Body) > maxData {
		return false, nil
	}
	l.mu.Lock()
	f, _ := l.flowLocked(m)
	l.mu.Unlock()
	if f == nil {
		return false, nil
	}
	defer l.leave(f)
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
	n, _, err := l.piece(f, m, m.Body) // only the turn's holder takes credit away
	return n >= 0, err
}

// answered takes what the other side says of a flow of this one's.
func (l *link) answered(fr frame, r io.Reader) error {
	var b [maxRefuse]byte
	body := b[:fr.length]
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.byNumber[fr.flow]
	if f == nil {
		return wireError("a frame of type %d for flow %d, which there is not", fr.typ, fr.flow)
	}
	first := binary.BigEndian.Uint32(body)
	switch fr.typ {
	case frameCredit:
		return f.creditedLocked(int(first), int(binary.BigEndian.Uint32(body[4:])))
	case frameGrant:
		if f.busy && first == f.count { // else it was given up meanwhile
			f.granted = true
			f.signalLocked()
		}
	case frameRefuse:
		if f.busy && first == f.count && f.refused == nil {
			f.refused = decodeNotice(body[4:])
			f.signalLocked()
		}
	}
	return nil
}

// creditedLocked takes the other side's word that bytes were delivered, and that more
// may be on their way.
func (f *outflow) creditedLocked(delivered, more int) error {
	if delivered > f.window-f.credit || more > 4*mostCredit-f.window || delivered+more == 0 {
		return wireError("credit of %d and %d bytes, where %d are on their way", delivered, more, f.window-f.credit)
	}
	f.window += more
	f.credit += delivered + more
	f.surerLocked(delivered)
	f.signalLocked()
	return nil
}

// unsureLocked returns, of the messages that were sent and are not known to be
// delivered, what tells of their loss to whom.
func (f *outflow) unsureLocked() (lost []*Message) {
	for _, u := range f.unsure {
		if u.kind != failed {
			lost = append(lost, &Message{Return: f.back, kind: u.kind, id: u.id})
		}
	}
	return lost
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
