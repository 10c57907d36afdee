package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/noise"
)

// Initiate runs the initiator's side of a handshake on nc, for purpose p, with
// the peer that must prove to be want. Everything about the peer is checked
// before message 3 is written, so a wrong responder never learns who called.
// For [PurposeChannel] a nil request asks for a new channel.
//
// The Conn owns nc; after an error nc is closed. ctx bounds the handshake
// only. The peer may still refuse: its refusal is the first Read's error.
func Initiate(ctx context.Context, nc net.Conn, l *Local, want identity.Identifier, p Purpose, request []byte, opt Options) (*Conn, error) {
	opt = opt.withDefaults()
	h := &handshake{nc: nc, opt: opt}
	var c *Conn
	err := h.within(ctx, func() (err error) {
		c, err = h.initiate(l, want, p, request)
		return err
	})
	if err != nil {
		_ = nc.Close()
		return nil, h.explain(ctx, err)
	}
	return c, nil
}

// Respond runs the responder's side of a handshake on nc, accepting purpose p
// only. Before message 3 every failure is silent on the wire. The caller
// decides on the returned Incoming, which owns nc; after an error nc is
// closed.
func Respond(ctx context.Context, nc net.Conn, l *Local, p Purpose, opt Options) (*Incoming, error) {
	opt = opt.withDefaults()
	h := &handshake{nc: nc, opt: opt}
	var in *Incoming
	err := h.within(ctx, func() (err error) {
		in, err = h.respond(l, p)
		return err
	})
	if err != nil {
		_ = nc.Close()
		return nil, h.explain(ctx, err)
	}
	return in, nil
}

// An Incoming is an authenticated peer that waits for an answer: Accept or
// Refuse. Who has called Accept may still Refuse while nothing was written on
// the Conn, which is then closed.
type Incoming struct {
	conn    *Conn
	request []byte
	channel channelRequest // of PurposeChannel
}

// Resumes reports whether the peer wants another path for a channel that it has
// here, and so [Table.Resume]; else it wants a new one.
func (in *Incoming) Resumes() bool { return in.channel.Mode == modeResume }

// Peer returns who asks.
func (in *Incoming) Peer() Peer { return in.conn.peer }

// Request returns what the peer asks, as it came: bounded, not yet parsed.
func (in *Incoming) Request() []byte { return in.request }

// Accept returns the Conn. It sends nothing: on a channel the peer may have
// sent data already, on a hop the answer is the relay's to give.
func (in *Incoming) Accept() *Conn { return in.conn }

// Refuse sends an authenticated refusal, so that the peer can say why, and
// closes. It returns when that is done, at most the Linger time later.
func (in *Incoming) Refuse(c code.Code, reason string) error {
	return in.conn.finish(appendRefused(nil, c, reason))
}

// A handshake is one side's work on one net.Conn. buf holds what was read and
// not yet used: in the end, whatever followed the last message.
type handshake struct {
	nc  net.Conn
	opt Options
	buf []byte
	r   int  // buf[r:] is unread
	got bool // any byte came from the peer
}

// within calls f while the time-out and ctx bound what nc does. A path that
// has no deadlines could hold up everything here for ever, and is refused.
func (h *handshake) within(ctx context.Context, f func() error) error {
	if err := h.nc.SetDeadline(time.Now().Add(h.opt.Timeout)); err != nil {
		return &HandshakeError{Step: "preamble", Err: fmt.Errorf("bounding the path: %w", err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = h.nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		if err == nil {
			err = &HandshakeError{Step: "message 3", Err: context.Cause(ctx)}
		}
		return err
	}
	_ = h.nc.SetDeadline(time.Time{})
	return err
}

// explain turns a bare time-out into what ran out.
func (h *handshake) explain(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	step := "message 2"
	var he *HandshakeError
	if errors.As(err, &he) {
		step = he.Step
	}
	if ctx.Err() != nil {
		return &HandshakeError{Step: step, Err: context.Cause(ctx)}
	}
	return &HandshakeError{Step: step, Err: fmt.Errorf("no answer within %s: %w", h.opt.Timeout, os.ErrDeadlineExceeded)}
}

func (h *handshake) initiate(l *Local, want identity.Identifier, p Purpose, request []byte) (*Conn, error) {
	if request == nil && p == PurposeChannel {
		var err error
		if request, err = anyRequest(); err != nil {
			return nil, err
		}
	}
	shown, err := l.shows(time.Now())
	if err != nil {
		return nil, err
	}
	preamble := appendPreamble(make([]byte, 0, preambleLen+headerLen+message1Len), h.opt.Suite, p)
	ns, err := noise.New(noise.Config{Pattern: noise.XXhfs, Suite: h.opt.Suite, Initiator: true, Prologue: preamble, Static: shown.static})
	if err != nil {
		return nil, &HandshakeError{Step: "message 1", Err: err}
	}
	// -> e, e1
	if err := h.writeMessage(ns, preamble, nil); err != nil {
		return nil, &HandshakeError{Step: "message 1", Err: err}
	}
	// <- e, ee, ekem1, s, es
	b, err := h.readMessage(ns, maxHandshakeMsg)
	if err != nil {
		return nil, h.readError("message 2", err)
	}
	peer, _, err := verifyPayload(b, ns.RemoteStatic(), time.Now(), l.skew)
	if err != nil {
		return nil, &HandshakeError{Step: "identity", Err: err}
	}
	if peer.Identifier != want {
		return nil, &HandshakeError{Step: "identity", Err: &IdentityError{Want: want, Got: peer.Identifier}, Peer: &peer}
	}
	if err := h.admitted(peer, l.called); err != nil {
		return nil, &HandshakeError{Step: "identity", Err: err, Peer: &peer}
	}
	// -> s, se
	own, err := l.payload(shown, request)
	if err != nil {
		return nil, &HandshakeError{Step: "message 3", Err: err}
	}
	if err := h.writeMessage(ns, nil, own); err != nil {
		return nil, &HandshakeError{Step: "message 3", Err: err}
	}
	return h.conn(ns, peer, p)
}

func (h *handshake) respond(l *Local, p Purpose) (*Incoming, error) {
	preamble, suite, err := h.readPreamble(p)
	if err != nil {
		return nil, err
	}
	shown, err := l.shows(time.Now())
	if err != nil {
		return nil, err
	}
	ns, err := noise.New(noise.Config{Pattern: noise.XXhfs, Suite: suite, Prologue: preamble, Static: shown.static})
	if err != nil {
		return nil, &HandshakeError{Step: "message 1", Err: err}
	}
	if _, err := h.readMessage(ns, message1Len); err != nil {
		return nil, h.readError("message 1", err)
	}
	own, err := l.payload(shown, nil)
	if err != nil {
		return nil, &HandshakeError{Step: "message 2", Err: err}
	}
	if err := h.writeMessage(ns, nil, own); err != nil {
		return nil, &HandshakeError{Step: "message 2", Err: err}
	}
	b, err := h.readMessage(ns, maxHandshakeMsg)
	if err != nil {
		return nil, h.readError("message 3", err)
	}
	// From here on the peer holds the static key it claims: a refusal can be
	// authenticated, and says why.
	peer, request, verifyErr := verifyPayload(b, ns.RemoteStatic(), time.Now(), l.skew)
	var proven *Peer
	if verifyErr == nil {
		proven, verifyErr = &peer, h.admitted(peer, l.caller)
	}
	c, err := h.conn(ns, peer, p)
	if err != nil {
		return nil, err
	}
	in := &Incoming{conn: c, request: request}
	if verifyErr != nil {
		_ = in.Refuse(identityCode(verifyErr), "your identity was not accepted: "+verifyErr.Error())
		return nil, &HandshakeError{Step: "identity", Err: verifyErr, Peer: proven}
	}
	return in, in.checkChannel(p)
}

// admitted checks a peer as this handshake does, and as the process does for all.
func (h *handshake) admitted(peer Peer, process func(Peer) error) error {
	if h.opt.Admit != nil {
		if err := h.opt.Admit(peer); err != nil {
			return err
		}
	}
	return process(peer)
}

// checkChannel reads the request for a channel, and answers one that makes no
// sense.
func (in *Incoming) checkChannel(p Purpose) (err error) {
	if p != PurposeChannel {
		return nil
	}
	if in.channel, err = parseChannelRequest(in.request); err != nil {
		_ = in.Refuse(code.Protocol, err.Error())
		return &HandshakeError{Step: "request", Err: err, Peer: &in.conn.peer}
	}
	return nil
}

func (h *handshake) readPreamble(p Purpose) ([]byte, noise.Suite, error) {
	b, err := h.read(preambleLen)
	if err != nil {
		return nil, 0, h.readError("preamble", err)
	}
	preamble := append([]byte(nil), b...)
	switch {
	case string(preamble[:4]) != magic:
		return nil, 0, &HandshakeError{Step: "preamble", Err: errors.New("peer does not speak Culvert's protocol")}
	case preamble[4] != version:
		// For the peer's error text alone.
		_, _ = h.nc.Write(append([]byte(magic), version))
		return nil, 0, &HandshakeError{Step: "version", Err: &VersionError{Highest: preamble[4]}}
	case preamble[6] != byte(p) || preamble[7] != 0:
		return nil, 0, &HandshakeError{Step: "preamble", Err: fmt.Errorf("peer asks for a %s, this side serves a %s", Purpose(preamble[6]), p)}
	}
	suite := noise.Suite(preamble[5])
	if suite != noise.AESGCM && suite != noise.ChaChaPoly {
		return nil, 0, &HandshakeError{Step: "preamble", Err: fmt.Errorf("unknown cipher suite %d", suite)}
	}
	return preamble, suite, nil
}

// writeMessage sends the next handshake message behind its length, and behind
// prefix, in one write.
func (h *handshake) writeMessage(ns *noise.Handshake, prefix, payload []byte) error {
	at := len(prefix)
	b, err := ns.WriteMessage(append(prefix, 0, 0), payload)
	if err != nil {
		return err
	}
	n := len(b) - at - headerLen
	if n > maxHandshakeMsg {
		return fmt.Errorf("message of %d bytes, at most %d", n, maxHandshakeMsg)
	}
	binary.BigEndian.PutUint16(b[at:], uint16(n))
	if _, err := h.nc.Write(b); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// readMessage reads the next handshake message and returns its payload. The
// length is checked against limit before anything is allocated for it.
func (h *handshake) readMessage(ns *noise.Handshake, limit int) ([]byte, error) {
	b, err := h.read(headerLen)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > limit {
		if string(b) == magic[:2] {
			return nil, h.versionAnswer()
		}
		return nil, fmt.Errorf("message of %d bytes, at most %d", n, limit)
	}
	if limit == message1Len && n != message1Len {
		return nil, fmt.Errorf("message of %d bytes, want %d", n, message1Len)
	}
	if b, err = h.read(n); err != nil {
		return nil, err
	}
	return ns.ReadMessage(nil, b)
}

// versionAnswer reads the rest of what a peer of another version answers.
func (h *handshake) versionAnswer() error {
	b, err := h.read(versionAnswerLen - headerLen)
	if err != nil {
		return err
	}
	if string(b[:2]) != magic[2:] {
		return errors.New("peer does not speak Culvert's protocol")
	}
	return &VersionError{Highest: b[2]}
}

// read returns the next n bytes, valid until the next call. It reads as much
// as is there, up to the buffer's size, which grows with what the peer has
// proven: 2 KiB before message 1, a message's size later.
func (h *handshake) read(n int) ([]byte, error) {
	if free := cap(h.buf) - h.r; free < n {
		grown := make([]byte, len(h.buf)-h.r, max(2<<10, n+headerLen))
		copy(grown, h.buf[h.r:])
		h.buf, h.r = grown, 0
	}
	for len(h.buf)-h.r < n {
		k, err := h.nc.Read(h.buf[len(h.buf):cap(h.buf)])
		h.buf = h.buf[:len(h.buf)+k]
		h.got = h.got || k > 0
		if err != nil && len(h.buf)-h.r < n {
			return nil, err
		}
	}
	b := h.buf[h.r : h.r+n]
	h.r += n
	return b, nil
}

// readError names the step, and says what an early end usually means.
func (h *handshake) readError(step string, err error) error {
	var v *VersionError
	if errors.As(err, &v) {
		step = "version"
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
		if step == "message 2" && !h.got {
			err = fmt.Errorf("peer closed without a word (is a Culvert of the right kind listening there?): %w", err)
		}
	}
	return &HandshakeError{Step: step, Err: err}
}

// conn makes the Conn out of a complete handshake.
func (h *handshake) conn(ns *noise.Handshake, peer Peer, p Purpose) (*Conn, error) {
	send, recv, err := ns.Split()
	if err != nil {
		return nil, &HandshakeError{Step: "message 3", Err: err}
	}
	return newConn(h.nc, send, recv, peer, p, h.opt, h.buf[h.r:]), nil
}
