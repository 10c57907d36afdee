package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// yamux's header: version u8, type u8, flags u16, stream id u32, length u32,
// big-endian (hashicorp/yamux, spec.md).
const (
	muxHeader       = 12
	muxData         = 0
	muxWindowUpdate = 1

	flagSYN = 1
	flagACK = 2
	flagFIN = 4
	flagRST = 8
)

// maxHeld bounds the headers that wait in an adapter for the next frame, and
// holdTime how long they do.
const (
	maxHeld  = 64 * muxHeader
	holdTime = 5 * time.Millisecond
)

// An adapter is the conn under yamux. It writes each header together with its
// body, and one that opens or closes a stream together with the frame that comes
// next, follows the streams' windows, keeps from yamux the data that nobody will
// read, refuses whatever Culvert does not use of yamux, and closes at once: the
// carrier's own, slower close is the session's.
type adapter struct {
	carrier Carrier
	client  bool // this side opens the streams
	limit   int  // streams that may be followed: open, unanswered, control and one being refused
	windows windows

	outMu    sync.Mutex // never waited for for long: the carrier alone stops who has it
	out      []byte     // headers that wait for the next frame, and one for its body
	bodyLeft int        // bytes of that body
	gather   func(head, body []byte, more bool) (int, error)
	more     func() bool   // others are about to write
	held     chan struct{} // capacity 1: headers have begun to wait for the next frame

	// Owned by yamux's receiving goroutine.
	head [muxHeader]byte
	have int  // bytes of head
	skip int  // bytes of a body still to come
	cut  bool // that yamux does not get

	closed atomic.Bool
	failMu sync.Mutex
	failed error // the first error of the carrier or the peer

	// yamux's Reads spin from its shutdown on until the last of its goroutines
	// has ended, which thousands of them can keep from running. So yamux is not
	// told of an error before nobody is left in a Read.
	broke chan struct{} // closed when failed is set
	freed chan struct{} // closed by the session: no stream waits in a Read
}

func newAdapter(c Carrier, client bool, limit int) *adapter {
	return &adapter{
		carrier: c, client: client, limit: limit, gather: gatherOf(c), more: func() bool { return false },
		held: make(chan struct{}, 1), broke: make(chan struct{}), freed: make(chan struct{}),
	}
}

// gatherOf returns the carrier's own way to write a header together with its
// body, or else one that joins them first.
func gatherOf(c Carrier) func(head, body []byte, more bool) (int, error) {
	if v, ok := c.(interface {
		Writev(head, body []byte, more bool) (int, error)
	}); ok {
		return v.Writev
	}
	var joined []byte
	return func(head, body []byte, _ bool) (int, error) {
		joined = append(append(joined[:0], head...), body...)
		return c.Write(joined)
	}
}

// Read hands out what the carrier brings, once the headers in it are found good:
// whole headers only, and no data of streams of which nothing is read any more.
// yamux would keep that until the peer closes the stream, which may be never. p
// has to have room for more than a header; yamux reads into 4,096 bytes or more.
func (a *adapter) Read(p []byte) (int, error) {
	if len(p) <= muxHeader {
		return 0, a.fail(io.ErrShortBuffer)
	}
	for {
		have := copy(p, a.head[:a.have])
		n, err := a.carrier.Read(p[have:])
		kept, scanErr := a.scan(p[:have+n])
		switch {
		case scanErr != nil:
			return 0, a.fail(scanErr)
		case err != nil:
			return kept, a.fail(err)
		case kept > 0:
			return kept, nil
		}
	}
}

// scan follows the frames in b, which may begin in the middle of a body and end
// anywhere. It moves what yamux gets to the front of b, returns how much that is,
// and keeps the beginning of a header in head.
func (a *adapter) scan(b []byte) (kept int, err error) {
	a.have = 0
	for at := 0; at < len(b); {
		n := min(a.skip, len(b)-at)
		keep := !a.cut
		switch {
		case n > 0:
			a.skip -= n
		case len(b)-at < muxHeader:
			a.have = copy(a.head[:], b[at:])
			return kept, nil
		default:
			n = muxHeader
			if keep, err = a.received(b[at : at+n]); err != nil {
				return 0, err
			}
		}
		if keep {
			if kept < at {
				copy(b[kept:], b[at:at+n])
			}
			kept += n
		}
		at += n
	}
	return kept, nil
}

// received checks a header from the peer and acts on its window. It reports
// whether yamux gets the header; where it does not get the body, the header says
// that there is none.
func (a *adapter) received(h []byte) (keep bool, err error) {
	flags := binary.BigEndian.Uint16(h[2:])
	id := binary.BigEndian.Uint32(h[4:])
	length := binary.BigEndian.Uint32(h[8:])
	if err := a.check(h[0], h[1], flags, id, length); err != nil {
		return false, err
	}
	if flags&flagSYN != 0 {
		if err := a.windows.open(id, a.limit); err != nil {
			return false, err
		}
	}
	if flags&flagFIN != 0 && !a.windows.closed(id, false, true) {
		return false, fmt.Errorf("%w: stream %d closed twice", errProtocol, id)
	}
	if h[1] == muxWindowUpdate {
		return true, a.windows.grow(id, length)
	}
	a.skip = int(length)
	if a.cut, err = a.windows.received(id, length); !a.cut {
		return true, err
	}
	binary.BigEndian.PutUint32(h[8:], 0)
	return flags != 0, err
}

// check returns an error for a header that a peer may not send.
func (a *adapter) check(version, kind byte, flags uint16, id, length uint32) error {
	switch {
	case version != 0:
		return fmt.Errorf("%w: mux version %d", errProtocol, version)
	case kind != muxData && kind != muxWindowUpdate:
		return fmt.Errorf("%w: mux frame of type %d", errProtocol, kind)
	case flags&^(flagSYN|flagACK|flagFIN) != 0:
		// RST too: yamux sends it only to a peer that opens more than the
		// backlog, and a number free again at once could be used twice.
		return fmt.Errorf("%w: mux flags %#x", errProtocol, flags)
	case id == 0:
		return fmt.Errorf("%w: frame for stream 0", errProtocol)
	case id%2 == 0:
		return fmt.Errorf("%w: frame for stream %d: only the inlet's side opens streams", errProtocol, id)
	case flags&flagSYN != 0 && a.client, flags&flagACK != 0 && !a.client:
		return fmt.Errorf("%w: mux flags %#x from this side", errProtocol, flags)
	case length > maxUpdate:
		return fmt.Errorf("%w: mux length %d", errProtocol, length)
	}
	return nil
}

// Write takes a header, or the body that belongs to the header before. yamux
// calls it from one goroutine.
func (a *adapter) Write(p []byte) (int, error) {
	a.outMu.Lock()
	err := a.writeLocked(p)
	a.outMu.Unlock()
	if err != nil {
		return 0, a.fail(err)
	}
	return len(p), nil
}

func (a *adapter) writeLocked(p []byte) error {
	if a.bodyLeft > 0 {
		if len(p) != a.bodyLeft {
			return fmt.Errorf("mux wrote a body of %d bytes, its header says %d", len(p), a.bodyLeft)
		}
		a.bodyLeft = 0
		return a.sendLocked(p)
	}
	if len(p) != muxHeader {
		return fmt.Errorf("mux wrote a header of %d bytes", len(p))
	}
	h := [muxHeader]byte(p)
	if said, err := a.sending(h); err != nil || !said {
		return err
	}
	first := len(a.out) == 0
	a.appendHeader(h)
	switch {
	case a.bodyLeft > 0:
		return nil
	case canWait(h) && len(a.out) < maxHeld:
		if first {
			select {
			case a.held <- struct{}{}:
			default:
			}
		}
		return nil
	}
	return a.sendLocked(nil)
}

// appendHeader lets a header wait: a window update in pieces that a peer
// accepts.
func (a *adapter) appendHeader(h [muxHeader]byte) {
	length := binary.BigEndian.Uint32(h[8:])
	for h[1] == muxWindowUpdate && length > maxUpdate {
		binary.BigEndian.PutUint32(h[8:], maxUpdate)
		a.out = append(a.out, h[:]...)
		length -= maxUpdate
		h[2], h[3] = 0, 0 // the flags are said
	}
	binary.BigEndian.PutUint32(h[8:], length)
	a.out = append(a.out, h[:]...)
}

// canWait reports whether the header says nothing that the peer waits for. A
// stream's SYN is followed by OPEN and its ACK by the answer, so that each pair
// is one record; the FIN of the mux comes after the stream's own end, which says
// it all.
func canWait(h [muxHeader]byte) bool {
	flags := binary.BigEndian.Uint16(h[2:])
	return flags&(flagSYN|flagACK|flagFIN) != 0 && binary.BigEndian.Uint32(h[4:]) != controlStream
}

// sendLocked sends the headers that wait, and body behind them.
func (a *adapter) sendLocked(body []byte) error {
	head := a.out
	a.out = a.out[:0]
	_, err := a.gather(head, body, a.more())
	return err
}

// flush sends the headers for which no frame has come.
func (a *adapter) flush() {
	a.outMu.Lock()
	var err error
	if len(a.out) > 0 && a.bodyLeft == 0 {
		err = a.sendLocked(nil)
	}
	a.outMu.Unlock()
	if err != nil {
		_ = a.fail(err)
	}
}

// sending acts on a header that yamux sends, and reports whether the peer gets it:
// not where it would allow more data of which nothing is read.
func (a *adapter) sending(h [muxHeader]byte) (said bool, err error) {
	flags := binary.BigEndian.Uint16(h[2:])
	id := binary.BigEndian.Uint32(h[4:])
	if flags&flagSYN != 0 {
		if err := a.windows.open(id, a.limit); err != nil {
			return false, err
		}
	}
	if flags&flagRST != 0 {
		a.windows.closed(id, true, true)
	}
	switch length := binary.BigEndian.Uint32(h[8:]); h[1] {
	case muxData:
		a.bodyLeft = int(length)
	case muxWindowUpdate:
		return a.windows.allow(id, length) || flags != 0, nil
	}
	return true, nil
}

// Close frees Read and Write and returns at once.
func (a *adapter) Close() error {
	if a.closed.CompareAndSwap(false, true) {
		_ = a.carrier.SetDeadline(time.Unix(1, 0))
	}
	return nil
}

// fail remembers the first error, unless this side has closed, waits until the
// session has acted on it, and returns an error for yamux.
func (a *adapter) fail(err error) error {
	if !a.closed.Load() {
		a.failMu.Lock()
		if a.failed == nil {
			a.failed = err
			close(a.broke)
		}
		a.failMu.Unlock()
		<-a.freed
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

// cause returns the first error, or nil.
func (a *adapter) cause() error {
	a.failMu.Lock()
	defer a.failMu.Unlock()
	return a.failed
}
