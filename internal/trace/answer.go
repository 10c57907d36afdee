package trace

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/culvert-net/culvert/pkg/code"
)

// maxMessage bounds what is shown of a collector's message, in bytes.
const maxMessage = 256

// A RejectedError says that the collector has taken a request, but for some spans.
type RejectedError struct {
	Spans   uint64
	Message string // the collector's, for people
}

// Error implements error.
func (e *RejectedError) Error() string {
	return fmt.Sprintf("the collector has rejected %d spans: %q", e.Spans, e.Message)
}

// rejected reads the answer to a request, an ExportTraceServiceResponse, whose package
// needs gRPC: a *RejectedError where it says that spans were rejected. One that cannot
// be read says nothing: the spans are with the collector.
//
//	message ExportTraceServiceResponse { ExportTracePartialSuccess partial_success = 1; }
//	message ExportTracePartialSuccess { int64 rejected_spans = 1; string error_message = 2; }
func rejected(answer []byte) error {
	var partial []byte
	var e RejectedError
	ok := fields(answer, func(n protowire.Number, _ uint64, b []byte) {
		if n == 1 {
			partial = b
		}
	}) && fields(partial, func(n protowire.Number, v uint64, b []byte) {
		switch n {
		case 1:
			e.Spans = v
		case 2:
			e.Message = code.Printable(string(b[:min(len(b), maxMessage)]))
		}
	})
	if !ok || int64(e.Spans) <= 0 {
		return nil
	}
	return &e
}

// fields calls see for each field of a message that is a number or bytes, and reports
// whether all of it could be read. Of a number, b is nil.
func fields(message []byte, see func(n protowire.Number, v uint64, b []byte)) bool {
	for len(message) > 0 {
		n, typ, size := protowire.ConsumeTag(message)
		if size < 0 {
			return false
		}
		message = message[size:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(message)
		default:
			size = protowire.ConsumeFieldValue(n, typ, message)
		}
		if size < 0 {
			return false
		}
		if typ == protowire.VarintType || typ == protowire.BytesType {
			see(n, v, b)
		}
		message = message[size:]
	}
	return true
}
