package tunnel

import (
	"encoding/binary"
	"fmt"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

// A frame, inside a stream of the mux, is a type u8, a length u24 big-endian
// and that many bytes:
//
//	OPEN     CBOR map (see Open), the first frame of the opening side
//	OPENED   empty, the first frame of the accepting side
//	REFUSED  code u16, reason; instead of OPENED, and the last
//	DATA     1 to 65,536 bytes
//	FIN      empty; the end of this direction's data
//	RST      code u16; the end of both directions, not a clean one
//
// The control stream's frames have types of their own; unknown ones are passed
// over, so that later versions can add some:
//
//	ABORT    stream id u32, code u16: RST for what cannot wait its turn
//	DRAIN    reason; open no streams here any more
//	STOP     stream id u32: its sender reads no more of that stream
//	MOVE     reason; the path here is about to end, make another
//	REFRESH  reserved (19)
//	PROBE    stream id u32: does it move at your end?
//	PROGRESS stream id u32, number u64; the answer to PROBE: another number than
//	         the last time says that it has moved since
type frameType byte

const (
	frameOpen    frameType = 1
	frameOpened  frameType = 2
	frameRefused frameType = 3
	frameData    frameType = 4
	frameFin     frameType = 5
	frameRst     frameType = 6

	controlAbort    frameType = 16
	controlDrain    frameType = 17
	controlMove     frameType = 18
	controlStop     frameType = 20
	controlProbe    frameType = 21
	controlProgress frameType = 22
)

const (
	frameHeader = 4
	maxData     = 64 << 10
	maxOpen     = 4 << 10
	maxControl  = 4 << 10
	maxService  = 253
	maxAddress  = 256
)

func putHeader(b []byte, t frameType, n int) {
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(n))
}

func parseHeader(b [frameHeader]byte) (frameType, int) {
	v := binary.BigEndian.Uint32(b[:])
	return frameType(v >> 24), int(v & 0xffffff)
}

// checkFrame returns an error when a stream may not carry a frame of that type
// and length.
func checkFrame(t frameType, n int) error {
	low, high := 0, 0
	switch t {
	case frameOpen:
		low, high = 1, maxOpen
	case frameOpened, frameFin:
	case frameRefused:
		low, high = 2, 2+code.MaxReason
	case frameData:
		low, high = 1, maxData
	case frameRst:
		low, high = 2, 2
	default:
		return fmt.Errorf("%w: frame of type %d", errProtocol, t)
	}
	if n < low || n > high {
		return fmt.Errorf("%w: frame of type %d with %d bytes", errProtocol, t, n)
	}
	return nil
}

// appendFrame appends a whole frame.
func appendFrame(dst []byte, t frameType, body ...byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	putHeader(dst[at:], t, len(body))
	return append(dst, body...)
}

func appendRst(dst []byte, c code.Code) []byte {
	return appendFrame(dst, frameRst, byte(c>>8), byte(c))
}

func appendRefused(dst []byte, c code.Code, reason string) []byte {
	return appendFrame(dst, frameRefused, append([]byte{byte(c >> 8), byte(c)}, code.CutReason(reason)...)...)
}

func appendAbort(dst []byte, id uint32, c code.Code) []byte {
	body := binary.BigEndian.AppendUint32(nil, id)
	return appendFrame(dst, controlAbort, binary.BigEndian.AppendUint16(body, uint16(c))...)
}

func appendStop(dst []byte, id uint32) []byte {
	return appendFrame(dst, controlStop, binary.BigEndian.AppendUint32(nil, id)...)
}

func parseAbort(b []byte) (id uint32, c code.Code, err error) {
	if len(b) != 6 {
		return 0, 0, fmt.Errorf("%w: ABORT of %d bytes", errProtocol, len(b))
	}
	return binary.BigEndian.Uint32(b), code.Code(binary.BigEndian.Uint16(b[4:])), nil
}

// parseStream reads the body of a frame that names a stream and says no more.
func parseStream(frame string, b []byte) (id uint32, err error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("%w: %s of %d bytes", errProtocol, frame, len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}

// parseRefused reads a REFUSED frame's body, whose bounds checkFrame has seen
// to.
func parseRefused(b []byte) (code.Code, string) {
	return code.Code(binary.BigEndian.Uint16(b)), code.Printable(string(b[2:]))
}

// Open is what an opening side asks for.
type Open struct {
	Service       string `cbor:"1,keyasint"`           // at most 253 bytes
	ClientAddress string `cbor:"2,keyasint,omitempty"` // the inlet's claim, at most 256 bytes

	// Trace is the opener's span; zero: there is none.
	Trace TraceContext `cbor:"-"`
}

// A tracedOpen is the body of an OPEN with a trace context.
type tracedOpen struct {
	Open
	Trace *TraceContext `cbor:"3,keyasint,omitempty"`
}

func (o Open) frame() ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var v any = o
	if !o.Trace.IsZero() {
		c := o.Trace // so that o moves to the heap only here
		v = tracedOpen{o, &c}
	}
	body, err := canon.Marshal(v)
	if err != nil {
		return nil, err
	}
	return appendFrame(nil, frameOpen, body...), nil
}

func parseOpen(b []byte) (Open, error) {
	var o Open
	if !canon.Texts(b, &o.Service, &o.ClientAddress) {
		var body tracedOpen
		if err := canon.Unmarshal(b, &body); err != nil { // it may have keys that are new
			return Open{}, fmt.Errorf("%w: reading OPEN: %w", errProtocol, err)
		}
		o = body.Open
		if body.Trace != nil {
			o.Trace = *body.Trace
		}
	}
	if err := o.check(); err != nil {
		return Open{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return o, nil
}

func (o Open) check() error {
	switch {
	case o.Service == "" || len(o.Service) > maxService:
		return fmt.Errorf("service name of %d bytes, want 1 to %d", len(o.Service), maxService)
	case len(o.ClientAddress) > maxAddress:
		return fmt.Errorf("client address of %d bytes, at most %d", len(o.ClientAddress), maxAddress)
	case code.Printable(o.Service) != o.Service || code.Printable(o.ClientAddress) != o.ClientAddress:
		return fmt.Errorf("service name or client address with unprintable characters")
	}
	if !o.Trace.IsZero() {
		return o.Trace.names()
	}
	return nil
}
