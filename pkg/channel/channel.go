// Package channel owns the authenticated, encrypted conversation between two
// instances. A [Conn] is one Noise handshake on the wire, the records after it
// and their authenticated end, on one path; it can be given up with
// [Conn.Detach], which leaves the path as it is. A [Channel] is a byte stream
// that outlives its paths: a [Caller] opens it and makes its paths, a [Table]
// accepts it and finds it again when another path of it comes in.
//
// Wire layout (docs/protocol.md has the whole):
//
//	initiator                                responder
//	preamble, u16 length, message 1    ->
//	                                   <-    u16 length, message 2
//	u16 length, message 3              ->
//	                                   <-    ATTACHED, records
//	records                            ->
//
// It does not dial or listen, does not know relays or streams, does not decide
// who is allowed, and does not log.
package channel

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	maxWindow = 16 << 20
	minWindow = 256 << 10
	// unsentMax bounds what a Write may leave behind that no path has taken:
	// more would only be delay.
	unsentMax = 256 << 10
	// An ACK goes after so many consumed bytes, or so long after the first.
	ackBytes = 256 << 10
	tickTime = 100 * time.Millisecond
	// partTime is how long Close waits for the peer's own close, once the peer
	// has everything.
	partTime = time.Second
)

// An ID names a channel between two instances: 16 random bytes, drawn by the
// initiator and known to the two ends only.
type ID [16]byte

// String returns the name in lower-case hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Settings are a channel's. The zero value is the default.
type Settings struct {
	Handshake Options
	// Keepalive is the interval after which a silent side sends PING; a path
	// that brings nothing for two of them is dead. 0 means 5 s.
	Keepalive time.Duration
	// Grace is how long a channel lives without a path; 0 means 60 s.
	Grace time.Duration
	// Linger is how long Close waits for the peer to have everything; 0 means
	// 10 s. Without a path, and with nothing unsent, it waits a tenth of it.
	Linger time.Duration
	// Window is how many bytes the peer may have on their way, from 256 KiB to
	// 16 MiB; 0 means 16 MiB.
	Window int
	// Buffers is the process's budget; nil means one of 256 MiB for each of a
	// Caller's channels, or for all of a Table's together.
	Buffers *Buffers
	// Trace is told what happens to a channel; nil means nobody is.
	Trace *Trace
}

func (s Settings) withDefaults() Settings {
	if s.Keepalive <= 0 {
		s.Keepalive = 5 * time.Second
	}
	if s.Grace <= 0 {
		s.Grace = time.Minute
	}
	if s.Linger <= 0 {
		s.Linger = 10 * time.Second
	}
	if s.Window <= 0 {
		s.Window = maxWindow
	}
	s.Window = min(max(s.Window, minWindow), maxWindow)
	if s.Buffers == nil {
		s.Buffers = NewBuffers(256 << 20)
	}
	if s.Trace == nil {
		s.Trace = &Trace{}
	}
	return s
}

// A Channel is the authenticated, encrypted, ordered, reliable byte stream
// between two instances. It outlives its paths: when one ends, at any byte and
// for any reason, Read and Write only take longer, while the initiator makes
// another path and both sides send again what the other lacks. Read returns
// io.EOF only after the peer's authenticated clean close, a *CloseError after
// one that says why, and a *LostError when the channel could not be kept.
//
// Its methods may be called concurrently. At most 256 KiB that Write has
// accepted are not yet on a path, at most the peer's window not yet consumed.
type Channel struct {
	id     ID
	set    Settings
	keeper *keeper // makes the initiator's paths; nil at the responder
	table  *Table  // knows the responder's; nil at the initiator
	// Of the peer, what never changes.
	identifier identity.Identifier
	instance   Instance
	name       string

	mu       sync.Mutex
	writable sync.Cond // room, or a state that Write or Close returns for
	readable sync.Cond // bytes held, the path's reader gone, or a state that Read returns for

	peer      Peer
	path      *Conn         // nil while there is none
	leaving   *Conn         // the responder's: the path before, until the initiator uses path
	changed   chan struct{} // closed, and made anew, when path comes or goes
	epoch     uint64        // of the last attempt, at the responder of path
	installed uint64        // the initiator's: of the path
	via       string
	peerAddr  netip.AddrPort // the responder's: of the peer's end of path
	route     int
	cause     Cause // why the last path was made
	pathUp    time.Time
	keysAt    time.Time     // when the handshake was that the last path's keys are from
	changes   uint64        // of the path
	ping      time.Duration // the path's last answered PING; 0 before
	held      time.Duration // how long the last path lived, once it is lost
	lostAt    time.Time
	lostErr   error

	// The sending half. Offsets count the bytes of the stream since its start;
	// a CLOSE counts as one byte after the last.
	out       queue
	next      uint64 // what the path sends next
	sentMax   uint64 // the highest offset that any path was given
	confirmed uint64 // the peer's last ACK; out is kept up to next all the same
	window    uint64
	flight    flight
	pacer     *time.Timer // while the flight holds bytes back for its pace
	writing   bool        // a Write is not to be interleaved with another
	holdback  bool        // a Write has more than could be accepted of it by now
	closing   bool
	closed    bool // the peer has everything, our CLOSE too
	last      []byte

	// The receiving half.
	in       queue  // received by the stand-in, not consumed
	received uint64 // decrypted in order, and held or consumed
	onPath   uint64 // offset of the next byte that the path brings; at most received
	consumed uint64 // returned by Read
	acked    uint64 // the last ACK that was sent
	reading  bool   // someone is in a path's Read
	waiting  int    // Reads that wait on readable
	peerEnd  error  // the peer's CLOSE: io.EOF or a *CloseError

	err  error           // why the channel is over; nil before
	life context.Context // ends when err is set
	end  context.CancelFunc

	tick        *time.Timer
	ticking     bool
	reads       uint64 // calls of Read
	readsAtTick uint64
	grace       *time.Timer // the responder's, while it has no path
	pings       []pinging   // calls of Ping that wait, at most maxPings
	news        []func()    // what Trace has still to be told
	telling     bool        // a goroutine does so

	backlog      atomic.Int64  // flight's
	smalls       atomic.Uint32 // calls of Brisk
	heldDetached int64         // guarded by table.mu: what table counts of it

	readUntil   deadline
	writeUntil  deadline
	background  sync.WaitGroup // stand-ins, ends of paths, and what tells the Trace
	closeOnce   sync.Once
	closeResult error
}

// A deadline is a Read's or Write's, guarded by the channel's mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newChannel(id ID, set Settings, peer Peer) *Channel {
	c := &Channel{
		id: id, set: set, window: minWindow, route: -1,
		peer: peer, identifier: peer.Identifier, instance: peer.Instance, name: peer.Name,
		changed: make(chan struct{}),
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.writable.L, c.readable.L = &c.mu, &c.mu
	c.tick = time.AfterFunc(time.Hour, c.onTick)
	c.tick.Stop()
	c.pacer = time.AfterFunc(time.Hour, c.onPace)
	c.pacer.Stop()
	c.backlog.Store(unsentMax)
	c.flight.reset(0, time.Now())
	return c
}

// A LostError says that a channel could not be kept: what was written may not
// have arrived, and nothing more will.
type LostError struct {
	Code code.Code // timeout, unknown_channel, gone, protocol, limit, or what the peer refused with
	Err  error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("channel lost: %s: %v", e.Code, e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// ID returns the channel's name.
func (c *Channel) ID() ID { return c.id }

// Peer returns whom the last handshake authenticated: always the same
// identifier and instance.
func (c *Channel) Peer() Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// Remote returns the peer's identifier and instance, also where Peer may not be
// called.
func (c *Channel) Remote() (identity.Identifier, Instance) { return c.identifier, c.instance }

// Done is closed when the channel is over.
func (c *Channel) Done() <-chan struct{} { return c.life.Done() }

// Err returns why the channel is over, nil before: net.ErrClosed after Close,
// else a *LostError.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// A State is a channel's, for people.
type State struct {
	Up    bool
	Since time.Time // of Up, or of its end
	Epoch uint64    // attempts at another path so far
	Route int       // the initiator's route of the path, or of the last one
	Via   string    // what the responder's Table was told of it
	// PeerAddr is, at the responder, the address of the peer itself, of which the peer
	// says, inside the encryption, what this side's socket does. Where something is between
	// the two (a relay, a balancer, an address translation), they differ, or the peer
	// says nothing, and it is the zero AddrPort, as it is while there is no path. A peer
	// that lies can have no other address named than one that its path comes from.
	PeerAddr netip.AddrPort
	Err      error     // why there is no path
	Keys     time.Time // when the handshake was that the keys of the path, or of the last one, are from
	Changes  uint64    // how often the channel has got another path
	// Ping is how long the peer took to answer the path's last PING, what has waited
	// before it on the way included; 0 while none was answered. A peer can lie about
	// it.
	Ping     time.Duration
	Kept     int    // bytes of memory held
	Sent     uint64 // bytes of the stream
	Received uint64
	Flight   Flight
}

// A Flight is what is known of a channel's path, for people. It is measured
// while there is much to send.
type Flight struct {
	RTT   time.Duration // the shortest of late, 0 while unknown
	Rate  float64       // bytes per second that the path has brought to the peer
	Under uint64        // bytes under way
	Bound uint64        // how many may be, 0 for no bound
}

// State returns what the channel is doing.
func (c *Channel) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{
		Up: c.path != nil, Since: c.pathUp, Epoch: c.epoch, Route: c.route, Via: c.via,
		Kept: c.out.held() + c.in.held(), Sent: c.out.end, Received: c.received,
		Keys: c.keysAt, Changes: c.changes, Ping: c.ping,
		Flight: c.flight.state(c.next, c.confirmed),
	}
	if c.path == nil {
		s.Since, s.Err = c.lostAt, c.lostErr
	} else {
		s.PeerAddr = c.peerAddr
	}
	return s
}

// Up reports whether there is a path, and returns a channel that is closed when
// that may have changed.
func (c *Channel) Up() (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path != nil, c.changed
}

// LocalAddr returns the path's local address, or what stands for it.
func (c *Channel) LocalAddr() net.Addr { return c.addr((*Conn).LocalAddr) }

// RemoteAddr returns the path's remote address, or what stands for it: the
// next hop's, not the peer's.
func (c *Channel) RemoteAddr() net.Addr { return c.addr((*Conn).RemoteAddr) }

func (c *Channel) addr(of func(*Conn) net.Addr) net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return channelAddr(c.id)
	}
	return of(c.path)
}

type channelAddr ID

func (channelAddr) Network() string  { return "culvert" }
func (a channelAddr) String() string { return "channel:" + ID(a).String() }

// SetDeadline sets both deadlines.
func (c *Channel) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Reads that wait.
func (c *Channel) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readUntil, t, c.interruptLocked)
}

// SetWriteDeadline bounds Writes that wait. It never takes back what a Write
// has accepted.
func (c *Channel) SetWriteDeadline(t time.Time) error {
	if err := c.setDeadline(&c.writeUntil, t, c.writable.Broadcast); err != nil {
		return err
	}
	c.mu.Lock()
	path := c.path
	c.mu.Unlock()
	if path != nil {
		path.w.setDeadline(t) // frees a Write that sends by itself
	}
	return nil
}

func (c *Channel) setDeadline(d *deadline, t time.Time, passed func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.err != nil {
		return net.ErrClosed
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	switch {
	case t.IsZero():
	case d.passed():
		passed()
	default:
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			passed()
		})
	}
	return nil
}

// interruptLocked makes all Reads look at the state again.
func (c *Channel) interruptLocked() {
	c.readable.Broadcast()
	if c.reading && c.path != nil {
		c.path.interruptRead()
	}
}

// stateLocked returns why neither Read nor Write goes on, or nil.
func (c *Channel) stateLocked(d *deadline) error {
	switch {
	case c.closing:
		return net.ErrClosed
	case c.err != nil:
		return c.err
	case d.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// changeLocked tells whoever waits for Up.
func (c *Channel) changeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}
