package credential

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// frameHead is the length of what stands before a message's body: kind u8,
// length of the body u24, id u32.
const frameHead = 8

// maxRequest bounds a request's body: the longest is a token.
const maxRequest = MaxToken + 64

// maxSmall bounds the body of an answer that is no list: the longest is a
// credential.
const maxSmall = MaxBundleLen + 64

// AppendRequest appends a request as it travels to dst. Its answer will have
// the same id, which is not 0 and not that of a request still unanswered.
func AppendRequest(dst []byte, id uint32, m Request) ([]byte, error) {
	if id == 0 {
		return dst, errors.New("writing request: its id is 0, which is that of no request")
	}
	dst, err := appendFrame(dst, id, m)
	if err != nil {
		return dst, fmt.Errorf("writing request: %w", err)
	}
	return dst, nil
}

// AppendAnswer appends an answer as it travels to dst. id is that of the
// request, or 0 for a revocation list that nobody has asked for.
func AppendAnswer(dst []byte, id uint32, m Answer) ([]byte, error) {
	head, body, err := EncodeAnswer(id, m)
	if err != nil {
		return dst, err
	}
	return append(append(dst, head...), body...), nil
}

// EncodeAnswer returns an answer as it travels, in two parts, of which the second
// is a list's own bytes where it is one: so that one that goes to many is not
// copied for each. id is that of [AppendAnswer].
func EncodeAnswer(id uint32, m Answer) (head, body []byte, err error) {
	if err = checkAnswerID(id, m.kind()); err == nil {
		head, body, err = encodeFrame(id, m)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("writing answer: %w", err)
	}
	return head, body, nil
}

// ReadRequest reads one request, of at most 17 KiB. The error is io.EOF only if
// r ends before it.
func ReadRequest(r io.Reader) (id uint32, m Request, err error) {
	h, err := readHead(r)
	if err != nil {
		if err == io.EOF {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("reading request: %w", err)
	}
	if m, err = h.readRequest(r); err != nil {
		return 0, nil, fmt.Errorf("reading request: %w", err)
	}
	return h.id, m, nil
}

// ReadAnswer reads one answer, of at most [MaxListLen]. id is 0 for a
// revocation list that was not asked for. The error is io.EOF only if r ends
// before it.
func ReadAnswer(r io.Reader) (id uint32, m Answer, err error) {
	h, err := readHead(r)
	if err != nil {
		if err == io.EOF {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("reading answer: %w", err)
	}
	if m, err = h.readAnswer(r); err != nil {
		return 0, nil, fmt.Errorf("reading answer: %w", err)
	}
	return h.id, m, nil
}

// A message is a [Request] or an [Answer].
type message interface {
	kind() kind
	check() error
	encode() ([]byte, error)
}

func appendFrame(dst []byte, id uint32, m message) ([]byte, error) {
	head, body, err := encodeFrame(id, m)
	if err != nil {
		return dst, err
	}
	return append(append(dst, head...), body...), nil
}

func encodeFrame(id uint32, m message) (head, body []byte, err error) {
	if err := m.check(); err != nil {
		return nil, nil, err
	}
	if body, err = m.encode(); err != nil {
		return nil, nil, err
	}
	head = binary.BigEndian.AppendUint32(nil, uint32(m.kind())<<24|uint32(len(body)))
	return binary.BigEndian.AppendUint32(head, id), body, nil
}

func checkAnswerID(id uint32, k kind) error {
	if id == 0 && k != kindFullList && k != kindDelta {
		return errors.New("its id is 0, which only a revocation list has that was not asked for")
	}
	return nil
}

// A frame is a message's head.
type frame struct {
	kind   kind
	length int
	id     uint32
}

func readHead(r io.Reader) (frame, error) {
	var b [frameHead]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return frame{}, err
	}
	first := binary.BigEndian.Uint32(b[:])
	return frame{kind(first >> 24), int(first & 0xffffff), binary.BigEndian.Uint32(b[4:])}, nil
}

func (h frame) readRequest(r io.Reader) (Request, error) {
	if h.kind < kindTicket || h.kind > kindFetch {
		return nil, fmt.Errorf("kind %d is no request", h.kind)
	}
	if h.id == 0 {
		return nil, errors.New("its id is 0, which is that of no request")
	}
	body, err := h.readBody(r, maxRequest)
	if err != nil {
		return nil, err
	}
	defer clear(body) // it may hold a secret
	m, err := decodeRequest(h.kind, body)
	if err != nil {
		return nil, err
	}
	return m, m.check()
}

func (h frame) readAnswer(r io.Reader) (Answer, error) {
	if h.kind < kindIssued || h.kind > kindRefused {
		return nil, fmt.Errorf("kind %d is no answer", h.kind)
	}
	if err := checkAnswerID(h.id, h.kind); err != nil {
		return nil, err
	}
	most := maxSmall
	if h.kind == kindFullList || h.kind == kindDelta {
		most = MaxListLen
	}
	body, err := h.readBody(r, most)
	if err != nil {
		return nil, err
	}
	m, err := decodeAnswer(h.kind, body)
	if err != nil {
		return nil, err
	}
	return m, m.check()
}

// readBody reads the body. What it allocates grows with what has come, not
// with what the head says.
func (h frame) readBody(r io.Reader, most int) ([]byte, error) {
	if h.length > most {
		return nil, fmt.Errorf("kind %d with %d bytes, at most %d", h.kind, h.length, most)
	}
	var body bytes.Buffer
	body.Grow(min(h.length, 16<<10))
	n, err := io.Copy(&body, io.LimitReader(r, int64(h.length)))
	if err == nil && n < int64(h.length) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("kind %d: after %d bytes of %d: %w", h.kind, n, h.length, err)
	}
	return body.Bytes(), nil
}
