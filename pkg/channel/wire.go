package channel

import (
	"encoding/binary"
	"fmt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/noise"
)

// The preamble stands before message 1 and is the Noise prologue:
//
//	"CVRT"  version u8  suite u8  purpose u8  0
const (
	preambleLen = 8
	magic       = "CVRT"
	version     = 1

	// A side that is sent a version it does not know answers with the magic and
	// its highest version. As the length of a message 2 those first two bytes
	// would be 17,238, which is over the limit: the two cannot be confused.
	versionAnswerLen = 5
)

// Each handshake message stands behind a big-endian u16 length.
const (
	message1Len     = 1216     // e 32, e1 1184
	maxHandshakeMsg = 16 << 10 // messages 2 and 3
	// What message 2 has beside its payload: e 32, ekem1 1088 and s 32, and three
	// tags. Message 3 has 80 bytes and the request.
	message2Cost = 32 + 1088 + 32 + 3*tagLen
)

// A record is a big-endian u16 length and that many bytes of AEAD ciphertext.
// The plaintext is a type and a body.
const (
	headerLen  = 2
	tagLen     = 16
	typeLen    = 1
	maxRecord  = 65535
	maxPlain   = maxRecord - tagLen // with the type
	pingLen    = 8
	closeFixed = 8 + 2 // offset u64, code u16
	ackLen     = 8
	// ATTACHED: received u64, epoch u64, start u64, window u32
	attachedLen = 8 + 8 + 8 + 4
)

type recordType byte

const (
	typeData     recordType = 1 // bytes of the stream, at least one
	typeAck      recordType = 2 // u64: all bytes before this offset are consumed
	typePing     recordType = 3 // 8 bytes, to be sent back
	typePong     recordType = 4 // the PING's 8 bytes
	typeClose    recordType = 5 // offset u64, code u16, reason
	typeAttached recordType = 6 // received u64, epoch u64, start u64, window u32
	typeRefused  recordType = 7 // code u16, reason
)

func appendPreamble(dst []byte, suite noise.Suite, p Purpose) []byte {
	dst = append(dst, magic...)
	return append(dst, version, byte(suite), byte(p), 0)
}

func appendClose(dst []byte, offset uint64, c code.Code, reason string) []byte {
	dst = append(dst, byte(typeClose))
	dst = binary.BigEndian.AppendUint64(dst, offset)
	dst = binary.BigEndian.AppendUint16(dst, uint16(c))
	return append(dst, code.CutReason(reason)...)
}

// An attached is the body of ATTACHED, by which the responder takes a path into
// use: what it has received, which attempt of the initiator's it answers, where
// its own bytes on the new path begin, and how many it takes unconsumed.
type attached struct {
	received, epoch, start uint64
	window                 uint32
}

func (a attached) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, a.received)
	dst = binary.BigEndian.AppendUint64(dst, a.epoch)
	dst = binary.BigEndian.AppendUint64(dst, a.start)
	return binary.BigEndian.AppendUint32(dst, a.window)
}

func parseAttached(b []byte) (attached, error) {
	if len(b) != attachedLen {
		return attached{}, fmt.Errorf("%w: ATTACHED of %d bytes, want %d", ErrProtocol, len(b), attachedLen)
	}
	return attached{
		received: binary.BigEndian.Uint64(b),
		epoch:    binary.BigEndian.Uint64(b[8:]),
		start:    binary.BigEndian.Uint64(b[16:]),
		window:   binary.BigEndian.Uint32(b[24:]),
	}, nil
}

func appendRefused(dst []byte, c code.Code, reason string) []byte {
	dst = append(dst, byte(typeRefused))
	dst = binary.BigEndian.AppendUint16(dst, uint16(c))
	return append(dst, code.CutReason(reason)...)
}

// parseClose reads a CLOSE record's body.
func parseClose(b []byte) (offset uint64, c code.Code, reason string, err error) {
	if len(b) < closeFixed {
		return 0, 0, "", fmt.Errorf("%w: CLOSE of %d bytes", ErrProtocol, len(b))
	}
	offset = binary.BigEndian.Uint64(b)
	c, reason, err = parseCodeReason(b[8:])
	return offset, c, reason, err
}

// parseCodeReason reads a code and a reason, which the peer wrote: it is
// bounded, and made printable, before anyone logs it.
func parseCodeReason(b []byte) (code.Code, string, error) {
	if len(b) < 2 {
		return 0, "", fmt.Errorf("%w: code of %d bytes", ErrProtocol, len(b))
	}
	if len(b) > 2+code.MaxReason {
		return 0, "", fmt.Errorf("%w: reason of %d bytes, at most %d", ErrProtocol, len(b)-2, code.MaxReason)
	}
	return code.Code(binary.BigEndian.Uint16(b)), code.Printable(string(b[2:])), nil
}
