package tunnel

import (
	"errors"
	"fmt"
)

// TraceContextLen is the length of a [TraceContext], in bytes.
const TraceContextLen = 16 + 8 + 1

// A TraceContext names the span that the opener of a stream has for it, so that the
// acceptor's become its children. It is what a W3C traceparent (Trace Context,
// section 3.2) of version 00 says, in binary: the trace-id of 16 bytes, the parent-id
// of 8 and the trace-flags. Neither id is all zeros, but in the zero TraceContext,
// which is none. It goes inside OPEN, end to end encrypted, and nowhere else.
type TraceContext [TraceContextLen]byte

// sampled is the one trace-flag that means something here.
const sampled = 1

// NewTraceContext returns the context of a span. The ids are not to be zero.
func NewTraceContext(trace [16]byte, parent [8]byte, isSampled bool) (c TraceContext) {
	copy(c[:16], trace[:])
	copy(c[16:24], parent[:])
	if isSampled {
		c[24] = sampled
	}
	return c
}

// IsZero reports whether there is no context.
func (c TraceContext) IsZero() bool { return c == TraceContext{} }

// TraceID returns the id of the whole trace.
func (c TraceContext) TraceID() [16]byte { return [16]byte(c[:16]) }

// ParentID returns the id of the opener's span.
func (c TraceContext) ParentID() [8]byte { return [8]byte(c[16:24]) }

// Sampled reports whether the opener records its span. It is a claim: what follows
// from it costs the acceptor something, and has to have a bound there.
func (c TraceContext) Sampled() bool { return c[24]&sampled != 0 }

// traceContextHead is what CBOR has before a byte string of that length (RFC 8949,
// section 3.1).
var traceContextHead = [2]byte{2<<5 | 24, TraceContextLen}

// MarshalCBOR returns a byte string.
func (c TraceContext) MarshalCBOR() ([]byte, error) {
	return append(traceContextHead[:], c[:]...), nil
}

// UnmarshalCBOR reads a byte string of that length that names a span, and nothing
// else. Flags that are not known are passed over, as the standard wants.
func (c *TraceContext) UnmarshalCBOR(data []byte) error {
	if len(data) != len(traceContextHead)+TraceContextLen || [2]byte(data) != traceContextHead {
		return fmt.Errorf("trace context is no byte string of %d bytes", TraceContextLen)
	}
	copy(c[:], data[len(traceContextHead):])
	c[24] &= sampled
	return c.names()
}

// names returns an error where the context names no span.
func (c *TraceContext) names() error {
	if c.TraceID() == [16]byte{} || c.ParentID() == [8]byte{} {
		return errors.New("trace context with an id that is all zeros")
	}
	return nil
}
