package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A link is a conversation with another node. Messages leave by it in outflows and
// come by it in inflows.
type link struct {
	node    *Node
	address Address                // of this end, on return routes
	nc      net.Conn               // of a transport, or a channel
	channel bool                   // it is a channel
	from    atomic.Pointer[Origin] // what comes by it is from there
	alive   time.Duration          // how often a silent one is asked for a sign of life; 0: its carrier does that
	account *account               // of the node's budget
	says    hello                  // this side
	hello   hello                  // the other side has said; set before anything else comes
	reached reached                // where this end's address was shown by what has come by the link
	parts   sync.WaitGroup         // of run
	listens bool                   // says nothing before the other side has, and was taken
	spoken  chan struct{}          // closed when this side has said what it is
	done    chan struct{}          // closed when run has returned

	ctx    context.Context // ends with the link
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	out      []byte              // frames that wait to be written
	spare    []byte              // the writer's, when it writes nothing
	answers  int                 // bytes of out that what has come asks for
	room     chan struct{}       // closed when out is with the writer
	flows    map[string]*outflow // by their routes
	byNumber map[uint32]*outflow
	turnover chan struct{} // closed when there may be room for another flow
	pong     bool          // is owed
	clock    uint64        // counts uses of flows
	last     uint32        // number given
	scratch  []byte

	wake chan struct{} // the writer's; has a token when there is something to write
	seen atomic.Int64  // when something came last, in nanoseconds since the link began
	said atomic.Int64  // when something was written last
	born time.Time

	in    map[uint32]*inflow // the reader's; those that are not closed
	quiet chan struct{}      // closed when the reader has ended
	begun atomic.Int32       // inflows, until the other side was told that they are over

	succession
}

// maxUnsent is how many bytes of frames wait for the writer before senders do.
const maxUnsent = 256 << 10

// lastWords is how long the rest of what is sent may take when this side ends a link.
const lastWords = time.Second

// errLinkClosed says that this side has ended a link.
var errLinkClosed = errors.New("the conn to the other node is closed")

// newLink returns a link that ends with ctx, which ends with the node.
func (n *Node) newLink(ctx context.Context, nc net.Conn, what string, from Origin, alive time.Duration) *link {
	l := &link{
		node: n, address: ownAddress(what), nc: nc, alive: alive, born: time.Now(),
		flows: map[string]*outflow{}, byNumber: map[uint32]*outflow{}, in: map[uint32]*inflow{},
		room: make(chan struct{}), turnover: make(chan struct{}), wake: make(chan struct{}, 1),
		account: n.budget.account(from), spoken: make(chan struct{}), done: make(chan struct{}), quiet: make(chan struct{}),
	}
	l.from.Store(&from)
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// run speaks with the other node until the link ends, and returns why. ready is
// called when the other node has said that it is one; its error ends the link.
func (l *link) run(ready func(hello) error) error {
	defer close(l.done)
	defer l.node.budget.leave(l.account)
	defer l.parts.Wait()
	defer l.nc.Close()
	unhook := context.AfterFunc(l.ctx, l.interrupt)
	defer unhook()
	if !l.listens {
		l.speak()
	}
	written := make(chan struct{})
	l.parts.Go(func() {
		defer close(written)
		if err := l.write(); err != nil {
			l.cancel(err)
		}
	})
	if l.alive > 0 {
		l.parts.Go(l.watch)
	}
	err := l.read(ready)
	l.cancel(err)
	close(l.quiet)
	<-written
	err = context.Cause(l.ctx)
	l.fail()
	return err
}

// interrupt frees the reader and the writer of a link that has ended.
func (l *link) interrupt() {
	until := time.Unix(1, 0)
	if l.leaving() {
		until = time.Now().Add(lastWords)
	}
	_ = l.nc.SetWriteDeadline(until)
	// The reader last: when it has ended, the writer may set another deadline.
	_ = l.nc.SetReadDeadline(time.Unix(1, 0))
}

// isOver reports whether the link has ended, or does with its node: what that has no place
// for then is lost with the link.
func (l *link) isOver() bool {
	if l.node.ctx.Err() != nil {
		<-l.ctx.Done() // which follows
	}
	return l.ctx.Err() != nil
}

// leaving reports whether it is this side that has ended the link: what senders were told
// is sent is written then.
func (l *link) leaving() bool {
	cause := context.Cause(l.ctx)
	return errors.Is(cause, errLinkClosed) || errors.Is(cause, context.Canceled)
}

// close ends the link.
func (l *link) close(err error) { l.cancel(err) }

// fail frees those who wait to send, and tells those whose messages the other side has
// not said to be delivered. When this side has ended the link, it knows.
func (l *link) fail() {
	var unsure [][]*Message // of each flow that has some
	l.mu.Lock()
	for _, f := range l.byNumber {
		f.signalLocked()
		if lost := f.unsureLocked(); len(lost) > 0 {
			unsure = append(unsure, lost)
		}
	}
	l.mu.Unlock()
	if l.leaving() || len(unsure) == 0 {
		return
	}
	why := failure(code.LinkLost, "", "the conn to the next node has ended before that has said that the message is delivered: %s", bounded(context.Cause(l.ctx).Error()))
	var told sync.WaitGroup
	defer told.Wait()
	for _, lost := range unsure { // side by side: who takes no word holds up nobody else's
		told.Go(func() {
			s := l.node.spell()
			defer func() { s.end() }() // of the last one
			for _, m := range lost {
				l.node.tellWithin(s, m, why)
			}
		})
	}
}

// poke tells the writer that there is something to write.
func (l *link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write writes what the link's senders have put down, all of it at once.
func (l *link) write() error {
	if !l.maySpeak() {
		return nil
	}
	for over := false; !over; {
		select {
		case <-l.wake:
		case <-l.ctx.Done():
		}
		if l.ctx.Err() != nil { // whichever was seen
			if !l.leaving() {
				return nil
			}
			l.awaitQuiet()
			over = true
		}
		l.mu.Lock()
		if l.pong {
			l.out, l.pong = frame{framePong, 0, 0}.append(l.out), false
		}
		b := l.out
		l.out, l.spare, l.answers = l.spare[:0], nil, 0
		close(l.room)
		l.room = make(chan struct{})
		l.mu.Unlock()
		if len(b) == 0 {
			l.spare = b
			continue
		}
		if over { // a busy machine may have come to this late
			_ = l.nc.SetWriteDeadline(time.Now().Add(lastWords))
		}
		if _, err := l.nc.Write(b); err != nil {
			return err
		}
		l.said.Store(int64(time.Since(l.born)))
		l.mu.Lock()
		if cap(b) <= 2*maxUnsent {
			l.spare = b
		}
		l.mu.Unlock()
	}
	return nil
}

// speak says what this side is, before whatever else waits to be said.
func (l *link) speak() {
	l.mu.Lock()
	l.out = append(l.says.append(make([]byte, 0, helloSize+len(l.out))), l.out...)
	l.mu.Unlock()
	close(l.spoken)
	l.poke()
}

// maySpeak waits until this side has spoken. False: the link has ended before that.
func (l *link) maySpeak() bool {
	select {
	case <-l.spoken:
	case <-l.ctx.Done():
	}
	select {
	case <-l.spoken: // whichever was seen
		return true
	default:
		return false
	}
}

// awaitQuiet waits until the reader of a link that has ended has said what is delivered,
// but not for long: it may be in a func of the program's.
func (l *link) awaitQuiet() {
	late := time.NewTimer(lastWords / 4)
	defer late.Stop()
	select {
	case <-l.quiet:
	case <-late.C:
	}
}

// awaitAnswered waits until few answers are unsent. It does not look at what senders
// have put down: two nodes that send much to each other would wait for each other.
func (l *link) awaitAnswered() error {
	for {
		l.mu.Lock()
		room, full := l.room, l.answers >= maxUnsent
		l.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-room:
		case <-l.ctx.Done():
			return l.lost()
		}
	}
}

// control puts down a frame with a small body, or none. Who sends much that asks for
// such, and reads nothing, is not read any more ([link.awaitAnswered]).
func (l *link) control(typ byte, flow uint32, body []byte) {
	l.mu.Lock()
	l.out = append(frame{typ, len(body), flow}.append(l.out), body...)
	l.answers += frameHead + len(body)
	l.mu.Unlock()
	l.poke()
}

// watch asks for signs of life, gives some, and ends a link on which none comes.
func (l *link) watch() {
	tick := time.NewTicker(l.alive)
	defer tick.Stop()
	for last := time.Since(l.born); l.ctx.Err() == nil; {
		select {
		case <-tick.C:
			now := time.Since(l.born)
			l.lookAfter(last, now)
			last = now
		case <-l.ctx.Done():
		}
	}
}

// lookAfter is watch's look at the time now, since the link began; the one before was at
// last.
func (l *link) lookAfter(last, now time.Duration) {
	if now-last > l.alive+l.alive/2 {
		l.seen.Store(int64(now)) // this process stood still: what has come meanwhile is not read yet
	}
	switch silent := now - time.Duration(l.seen.Load()); {
	case silent > 2*l.alive:
		l.cancel(errors.New("nothing received from the other node for too long"))
	case silent > l.alive/2:
		l.control(framePing, 0, nil)
	case now-time.Duration(l.said.Load()) > l.alive/2:
		// Unasked: what asks may stand behind megabytes that are on their way here.
		l.sign()
	}
}

// sign gives a sign of life; one, however often it is asked for.
func (l *link) sign() {
	l.mu.Lock()
	l.pong = true
	l.mu.Unlock()
	l.poke()
}

// hearing is what comes by a link, whatever part of a frame it is, with note of when.
type hearing struct{ link *link }

// Read implements io.Reader.
func (h hearing) Read(b []byte) (int, error) {
	n, err := h.link.nc.Read(b)
	if n > 0 {
		h.link.seen.Store(int64(time.Since(h.link.born)))
	}
	return n, err
}

// lost says that messages do not get through any more.
func (l *link) lost() error {
	cause := context.Cause(l.ctx)
	if l.node.ctx.Err() != nil {
		return ErrClosed
	}
	return failure(code.LinkLost, "", "the conn to the next node has ended: %s", bounded(cause.Error()))
}
