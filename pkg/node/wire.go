package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Two nodes speak over a conn, or over a channel, in frames; each says first what it
// speaks, who has accepted a conn when the other side has:
//
//	hello      "CVND", version 1, three zero bytes; 16 bytes series, u64 attempt
//	frame      u8 type, u24 length of what follows, u32 flow
//
// A flow carries the messages of one sender along one route, in order, in one
// direction. Its number is the sending side's, counted from 1. All numbers are
// big-endian.
//
//	OPEN    the routes: u8 count and addresses of the onward route, then of the return
//	        route; an address is a u8 length and its bytes
//	DATA    a piece of a message, 1 to 64 KiB; the first begins with the head. It takes
//	        credit, of which there are 4 KiB to begin with
//	CREDIT  u32 bytes of DATA, the oldest, that took credit and are delivered or given up;
//	        u32 bytes that may be on their way beyond those
//	DROP    the message that is under way will not be completed
//	CLOSE   there is no more; the other side says CLOSED when all is delivered
//	CLOSED  the flow is over, and its number free
//	PING, PONG  a sign of life, asked for and given, also unasked; of flow 0
//	GRANT   u32 number of a message in its flow, counted from 0: the rest of it takes no
//	        credit. Only said while there is no credit
//	REFUSE  u32 number of a message, and a loss: the rest of it is not wanted
//
//	head    u8 kind, u8 flags, u8 hops, u8 zero, u32 length of the body, u64 id
const (
	frameOpen   = 1
	frameData   = 2
	frameCredit = 3
	frameDrop   = 4
	frameClose  = 5
	frameClosed = 6
	framePing   = 7
	framePong   = 8
	frameGrant  = 9
	frameRefuse = 10

	frameHead   = 8
	messageHead = 16
	maxData     = 64 << 10
	maxOpen     = 2 * (1 + MaxRoute*(1+MaxAddress))
	maxRefuse   = 4 + maxNotice

	flagCarried = 1

	startCredit = 4 << 10
)

var preamble = [8]byte{'C', 'V', 'N', 'D', 1}

// A hello is what each side of a link says first. The one that has made the conn
// names the series that it is one of: at most one conn of a series is alive, the one
// of the highest attempt. Zeros are no series. The other one names what it calls itself
// in that series, as long as it runs.
type hello struct {
	series  [16]byte // random: who knows it is one of the two nodes, or reads on the way
	attempt uint64
}

const helloSize = len(preamble) + 16 + 8

func (h hello) append(b []byte) []byte {
	b = append(append(b, preamble[:]...), h.series[:]...)
	return binary.BigEndian.AppendUint64(b, h.attempt)
}

func readHello(r io.Reader) (h hello, err error) {
	var b [helloSize]byte
	// The preamble by itself: what is no node may say less, and wait.
	if _, err := io.ReadFull(r, b[:len(preamble)]); err != nil {
		return h, err
	}
	if [8]byte(b[:]) != preamble {
		return h, wireError("what answers is no node of this version: it began with %q", b[:len(preamble)])
	}
	rest := b[len(preamble):]
	if _, err := io.ReadFull(r, rest); err != nil {
		return h, err
	}
	h.attempt = binary.BigEndian.Uint64(rest[copy(h.series[:], rest):])
	return h, nil
}

// errWire is wrapped by errors that say the other node broke the protocol.
var errWire = errors.New("the other node broke the protocol")

func wireError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errWire, fmt.Errorf(format, args...))
}

// A frame is the head of one.
type frame struct {
	typ    byte
	length int
	flow   uint32
}

func (f frame) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(f.typ)<<24|uint32(f.length))
	return binary.BigEndian.AppendUint32(b, f.flow)
}

func readFrame(r io.Reader, scratch *[frameHead]byte) (frame, error) {
	if _, err := io.ReadFull(r, scratch[:]); err != nil {
		return frame{}, err
	}
	first := binary.BigEndian.Uint32(scratch[:])
	f := frame{byte(first >> 24), int(first & 0xffffff), binary.BigEndian.Uint32(scratch[4:])}
	return f, f.check()
}

// check bounds a frame before anything of it is read.
func (f frame) check() error {
	least, most := 0, 0
	switch f.typ {
	case frameOpen:
		least, most = 2, maxOpen
	case frameData:
		least, most = 1, maxData
	case frameCredit:
		least, most = 8, 8
	case frameGrant:
		least, most = 4, 4
	case frameRefuse:
		least, most = 4, maxRefuse
	case frameDrop, frameClose, frameClosed, framePing, framePong:
	default:
		return wireError("a frame of type %d", f.typ)
	}
	if f.length < least || f.length > most {
		return wireError("a frame of type %d with %d bytes", f.typ, f.length)
	}
	if (f.flow == 0) != (f.typ == framePing || f.typ == framePong) {
		return wireError("a frame of type %d on flow %d", f.typ, f.flow)
	}
	return nil
}

// A head is what travels before a message's body.
type head struct {
	kind   kind
	flags  byte
	hops   uint8
	length int
	id     uint64
}

func (h head) append(b []byte) []byte {
	b = append(b, byte(h.kind), h.flags, h.hops, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(h.length))
	return binary.BigEndian.AppendUint64(b, h.id)
}

func parseHead(b []byte) (head, error) {
	h := head{kind(b[0]), b[1], b[2], int(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:])}
	switch {
	case h.kind > failed || h.flags&^flagCarried != 0 || b[3] != 0:
		return h, wireError("a message's head is none: % x", b[:4])
	case h.kind == reply && h.id == 0: // it would pass where messages are asked who sends them
		return h, wireError("an answer to no request")
	case h.length > MaxBody:
		return h, wireError("a message of %d bytes, of which there may be %d", h.length, MaxBody)
	}
	return h, nil
}

// appendRoutes appends what OPEN says of a flow; it is the flow's key, too.
func appendRoutes(b []byte, onward, back Route) []byte {
	for _, r := range [2]Route{onward, back} {
		b = append(b, byte(len(r)))
		for _, a := range r {
			b = append(append(b, byte(len(a))), a...)
		}
	}
	return b
}

func parseRoutes(b []byte) (onward, back Route, err error) {
	var routes [2]Route
	for i := range routes {
		if len(b) == 0 || int(b[0]) > MaxRoute {
			return nil, nil, wireError("routes that end early, or are too long")
		}
		routes[i] = make(Route, b[0])
		b = b[1:]
		for j := range routes[i] {
			if len(b) == 0 || len(b) <= int(b[0]) {
				return nil, nil, wireError("an address that ends early")
			}
			n := int(b[0])
			routes[i][j] = Address(b[1 : 1+n])
			if err := routes[i][j].Check(); err != nil {
				return nil, nil, wireError("%w", err)
			}
			b = b[1+n:]
		}
	}
	if len(b) > 0 || len(routes[0]) == 0 {
		return nil, nil, wireError("routes with %d bytes behind them, or none onward", len(b))
	}
	return routes[0], routes[1], nil
}
