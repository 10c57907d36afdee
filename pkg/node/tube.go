package node

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A tube is one end of a byte stream in messages, which a path of a channel runs
// through: a worker of the node's own on one side, one end of a pipe on the other. It
// keeps nothing and repairs nothing: what is missing, doubled or out of order ends
// it, and the channel goes on over another.
//
// A body is u8 type, u32 number of the message in its direction, and bytes: open
// brings the first of them to who serves channels, data the others, end says that
// there are no more.
const (
	tubeOpen = 0
	tubeData = 1
	tubeEnd  = 2

	tubeHead  = 5
	tubeChunk = 32 << 10

	// tubeRoom is what may be on its way to one end of a path, beyond what its flow has.
	tubeRoom = 2 * tubeChunk

	// tubeLast is how long what the channel has sent last may take to the next hop.
	tubeLast = time.Second
)

type tube struct {
	near net.Conn // the tube's end of the pipe
	self *Self
	room *budget

	ctx    context.Context // of what it sends; ends when nobody would read it
	cancel context.CancelFunc

	got uint32 // messages; of the worker's goroutine

	mu     sync.Mutex
	onward Route       // to the other end, or to who makes it
	learnt bool        // onward is that end's own address
	cause  error       // why the path is over, if more is known than that it is
	via    func() bool // takes the watch over the link away
}

// errTube ends tubes that have lost something.
var errTube = errors.New("messages of the path are missing, doubled or out of order")

// newTube starts a tube and returns the other end of its pipe, which ends it.
func (n *Node) newTube() (*tube, net.Conn, error) {
	near, far := net.Pipe()
	t := &tube{near: near, room: newRoom(tubeRoom, n.cfg.Patience)}
	t.ctx, t.cancel = context.WithCancel(n.ctx)
	k, err := n.start(ownAddress("path"), t, Options{Allow: Anyone, Mailbox: 64, MailboxBytes: 8 * tubeChunk, Restarts: -1})
	if err != nil {
		t.cancel()
		_, _ = near.Close(), far.Close()
		return nil, nil, err
	}
	t.self = k.self
	k.wrote.Store(true) // it will
	return t, &tubeConn{far, t}, nil
}

// A tubeConn is the channel's end of a tube, which knows why it is over.
type tubeConn struct {
	net.Conn
	tube *tube
}

// Read implements net.Conn.
func (c *tubeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		c.tube.mu.Lock()
		defer c.tube.mu.Unlock()
		if c.tube.cause != nil {
			err = c.tube.cause
		}
	}
	return n, err
}

// Close implements net.Conn. The next hop may be one that takes nothing any more.
func (c *tubeConn) Close() error {
	time.AfterFunc(tubeLast, c.tube.cancel)
	return c.Conn.Close()
}

// Handle takes a message of the other end's. It waits until the channel has read it.
func (t *tube) Handle(_ context.Context, self *Self, m *Message) error {
	if len(m.Body) < tubeHead || binary.BigEndian.Uint32(m.Body[1:]) != t.got || m.Body[0] > tubeEnd {
		t.over(errTube)
		return errTube
	}
	t.got++
	t.learn(m)
	if len(m.Body) > tubeHead {
		if _, err := t.near.Write(m.Body[tubeHead:]); err != nil {
			self.Stop()
			return nil // the channel is done with the path
		}
	}
	if m.Body[0] == tubeEnd {
		t.over(nil)
	}
	return nil
}

// HandleLoss ends the tube: something of it did not arrive.
func (t *tube) HandleLoss(_ context.Context, _ *Self, err *DeliveryError) { t.over(err) }

// over ends the path. The pump sees it, and stops the worker.
func (t *tube) over(err error) {
	t.mu.Lock()
	if t.cause == nil {
		t.cause = err
	}
	t.mu.Unlock()
	t.cancel()
	_ = t.near.Close()
}

// learn takes the other end's address from the first message, and ends the tube with
// the link that it has come by.
func (t *tube) learn(m *Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.learnt {
		return
	}
	t.learnt, t.onward = true, m.Return
	if m.via != nil {
		l := m.via
		t.via = context.AfterFunc(l.ctx, func() { t.over(l.lost()) })
	}
}

// pump sends what the channel writes, until the channel, the path or ctx is over.
// first is the type of the first message. It returns when the tube has stopped.
func (t *tube) pump(ctx context.Context, first byte) {
	defer context.AfterFunc(ctx, func() { t.over(ErrClosed) })()
	typ, buf := first, make([]byte, tubeHead+tubeChunk)
	for number := uint32(0); ; number++ {
		n, err := t.near.Read(buf[tubeHead:])
		if n > 0 {
			if err := t.send(t.ctx, typ, number, slices.Clone(buf[:tubeHead+n])); err != nil {
				t.over(err)
				break
			}
			typ = tubeData
		}
		if err != nil {
			if errors.Is(err, io.EOF) { // the channel has closed its end
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), tubeLast)
				_ = t.send(last, tubeEnd, number, make([]byte, tubeHead)) // it may be over there, too
				cancel()
			}
			break
		}
	}
	t.over(nil)
	t.self.Stop()
	<-t.self.worker.ended
	t.room.close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.via != nil {
		t.via()
	}
}

func (t *tube) send(ctx context.Context, typ byte, number uint32, body []byte) error {
	body[0] = typ
	binary.BigEndian.PutUint32(body[1:], number)
	t.mu.Lock()
	onward, ready := t.onward, t.learnt || typ == tubeOpen
	t.mu.Unlock()
	if len(onward) == 0 || !ready { // the first message of a handshake is answered before there is a second
		return failure(code.NoWorker, "", "the other end of the path has said no way to it")
	}
	_, err := t.self.worker.node.deliver(ctx, &Message{Onward: onward, Return: t.self.route, Body: body, hops: maxHops}, nil, true)
	return err
}
