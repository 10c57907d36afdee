package noise

import (
	"crypto/cipher"
	"fmt"
	"math"
)

// Everything that a caller or a peer can do wrong is caught in this file: whose
// turn it is, which cipher sends, how long a message is, how many nonces there
// are, and that keys are dropped when anything fails.

// maxNonce is reserved by Noise (section 5.1) and never used.
const maxNonce = math.MaxUint64

// WriteMessage appends the next handshake message with payload in it to dst.
// It fails with ErrTurn, ErrComplete or ErrTooLong without having done
// anything; any other failure is final. On failure it returns nil. The room
// behind dst may share memory with payload in any way.
func (h *Handshake) WriteMessage(dst, payload []byte) ([]byte, error) {
	if err := h.ready(true); err != nil {
		return nil, err
	}
	if len(payload) > MaxMessage-h.overhead() {
		return nil, fmt.Errorf("writing handshake message %d: %w", h.index+1, ErrTooLong)
	}
	msg, err := h.write(payload)
	if err != nil {
		return nil, h.fail(fmt.Errorf("writing handshake message %d: %w", h.index+1, err))
	}
	h.advance()
	return append(dst, msg...), nil
}

// ReadMessage appends the payload of the next handshake message to dst. It
// fails with ErrTurn or ErrComplete without having done anything; any other
// failure is final, and every key is dropped. On failure it returns nil. The
// room behind dst may share memory with message in any way.
func (h *Handshake) ReadMessage(dst, message []byte) ([]byte, error) {
	if err := h.ready(false); err != nil {
		return nil, err
	}
	payload, err := h.readBounded(message)
	if err != nil {
		return nil, h.fail(fmt.Errorf("reading handshake message %d: %w", h.index+1, err))
	}
	h.advance()
	return append(dst, payload...), nil
}

func (h *Handshake) readBounded(message []byte) ([]byte, error) {
	if len(message) > MaxMessage {
		return nil, ErrTooLong
	}
	if len(message) < h.overhead() {
		return nil, ErrTooShort
	}
	return h.read(message)
}

// ready says why the next message cannot be written, or else read, by this
// side now.
func (h *Handshake) ready(write bool) error {
	switch {
	case h.err != nil:
		return h.err
	case h.pattern == nil: // the zero Handshake
		return ErrIncomplete
	case h.Complete():
		return ErrComplete
	case writes(h.initiator, h.index) != write:
		return ErrTurn
	}
	return nil
}

// advance goes on to the next message. After the last one only the chaining
// key is still needed, for Split.
func (h *Handshake) advance() {
	h.index++
	if h.Complete() {
		h.hash = append([]byte(nil), h.sym.h[:]...)
		h.dropKeys()
	}
}

// fail makes err what every later call returns, and drops every key.
func (h *Handshake) fail(err error) error {
	h.err = err
	h.dropKeys()
	h.remoteStatic = nil
	h.sym.drop()
	h.sym = nil
	return err
}

// dropKeys forgets what no later message needs. The key types of the standard
// library cannot be overwritten, only left to the garbage collector.
func (h *Handshake) dropKeys() {
	if h.psk != nil {
		clear(h.psk[:])
	}
	h.static, h.ephemeral, h.kem, h.psk = nil, nil, nil, nil
	h.remoteEphemeral, h.remoteKEM = nil, nil
}

// Complete reports whether all messages have been written and read, and none
// failed.
func (h *Handshake) Complete() bool {
	return h.err == nil && h.pattern != nil && h.index == len(h.pattern.messages)
}

// Split returns the ciphers of a complete handshake, once: send for what this
// side writes, recv for what it reads. In a one-way pattern the cipher for the
// direction that does not exist fails with ErrOneWay.
func (h *Handshake) Split() (send, recv *Cipher, err error) {
	switch {
	case h.err != nil:
		return nil, nil, h.err
	case !h.Complete():
		return nil, nil, ErrIncomplete
	case h.sym == nil:
		return nil, nil, ErrSplit
	}
	initiator, responder, err := h.sym.split()
	if err != nil {
		return nil, nil, h.fail(err)
	}
	h.sym.drop()
	h.sym = nil
	if h.pattern.oneWay() {
		responder = &Cipher{err: ErrOneWay}
	}
	if h.initiator {
		return initiator, responder, nil
	}
	return responder, initiator, nil
}

// A Cipher is Noise's CipherState (section 5.1): one direction of a channel,
// whose messages are opened in the order in which they were sealed. It is for
// one goroutine at a time, and must not be copied.
type Cipher struct {
	_ noCopy

	aead  cipher.AEAD // nil once err is set
	suite Suite
	n     uint64
	nonce [12]byte // here, and not on the stack, so that nothing is allocated
	err   error
}

func newCipher(suite Suite, key *[keyLen]byte) (*Cipher, error) {
	aead, err := suite.newAEAD(key)
	if err != nil {
		return nil, err
	}
	return &Cipher{aead: aead, suite: suite}, nil
}

// Seal appends the encryption of plaintext, which authenticates ad too, to dst.
// It allocates nothing when dst has room for len(plaintext)+Overhead bytes more.
// To encrypt in place pass plaintext[:0] as dst; otherwise the room behind dst
// must not overlap plaintext, nor ever ad. A plaintext of more than
// MaxMessage-Overhead bytes gives ErrTooLong and changes nothing; after 2^64-1
// messages the cipher is dead with ErrNonce.
func (c *Cipher) Seal(dst, ad, plaintext []byte) ([]byte, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	if len(plaintext) > MaxMessage-Overhead {
		return nil, ErrTooLong
	}
	c.suite.putNonce(&c.nonce, c.n)
	c.n++
	return c.aead.Seal(dst, c.nonce[:], plaintext, ad), nil
}

// Open appends the decryption of ciphertext to dst, with the rules for memory
// that Seal has (in place: ciphertext[:0]). After any failure the cipher is
// dead, its key dropped, and every later call returns the same error; what
// stood in dst's room, or in ciphertext when in place, is then lost.
func (c *Cipher) Open(dst, ad, ciphertext []byte) ([]byte, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	if len(ciphertext) > MaxMessage {
		return nil, c.kill(ErrTooLong)
	}
	if len(ciphertext) < Overhead {
		return nil, c.kill(ErrTooShort)
	}
	c.suite.putNonce(&c.nonce, c.n)
	out, err := c.aead.Open(dst, c.nonce[:], ciphertext, ad)
	if err != nil {
		return nil, c.kill(ErrAuthentication)
	}
	c.n++
	return out, nil
}

// alive says why the cipher cannot be used any more.
func (c *Cipher) alive() error {
	switch {
	case c.err != nil:
		return c.err
	case c.aead == nil:
		return ErrNoKey
	case c.n == maxNonce:
		return c.kill(ErrNonce)
	}
	return nil
}

// kill drops the key for good.
func (c *Cipher) kill(err error) error {
	c.aead, c.err = nil, err
	return err
}
