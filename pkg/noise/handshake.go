package noise

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
)

// A Config says which handshake to run, and with which keys. New keeps none of
// its slices.
type Config struct {
	Pattern   *Pattern
	Suite     Suite
	Initiator bool
	// Prologue is what both sides must have seen alike before the handshake.
	Prologue []byte
	// Static is this side's X25519 key: required by a pattern that uses it,
	// refused by one that does not.
	Static *ecdh.PrivateKey
	// RemoteStatic is the peer's X25519 key, for a pattern in which it is known
	// beforehand. Any other pattern refuses it: it would go unchecked.
	RemoteStatic *ecdh.PublicKey
	// PSK is the pre-shared key of a pattern that has one, which only the tests' have.
	PSK *[32]byte

	hooks hooks
}

// hooks are where randomness comes from; tests put fixed values there. A nil
// one is the real thing.
type hooks struct {
	ephemeral   func() (*ecdh.PrivateKey, error)
	kem         func() (*mlkem.DecapsulationKey768, error)
	encapsulate func(*mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error)
}

func (k hooks) orReal() hooks {
	if k.ephemeral == nil {
		k.ephemeral = func() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) }
	}
	if k.kem == nil {
		k.kem = mlkem.GenerateKey768
	}
	if k.encapsulate == nil {
		k.encapsulate = func(ek *mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error) {
			secret, ciphertext = ek.Encapsulate()
			return secret, ciphertext, nil
		}
	}
	return k
}

// A Handshake is Noise's HandshakeState (section 5.3): one side of one
// handshake. It is for one goroutine at a time.
type Handshake struct {
	_ noCopy

	// What New was told.
	pattern   *Pattern
	initiator bool
	hooks     hooks

	index int        // the next message, counted from 0
	err   error      // why the handshake failed, for good
	hash  []byte     // set when complete
	sym   *symmetric // nil after failure and after Split

	// Keys, all nil after failure. Only the remote static key outlives
	// completion.
	static          *ecdh.PrivateKey
	ephemeral       *ecdh.PrivateKey
	kem             *mlkem.DecapsulationKey768
	psk             *[32]byte
	remoteStatic    *ecdh.PublicKey
	remoteEphemeral *ecdh.PublicKey
	remoteKEM       *mlkem.EncapsulationKey768
}

// New returns a handshake before its first message. The error names every
// fault of cfg.
func New(cfg Config) (*Handshake, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Handshake{
		pattern:      cfg.Pattern,
		initiator:    cfg.Initiator,
		hooks:        cfg.hooks.orReal(),
		sym:          newSymmetric(cfg.Pattern.Protocol(cfg.Suite), cfg.Suite),
		static:       cfg.Static,
		remoteStatic: cfg.RemoteStatic,
	}
	if cfg.PSK != nil {
		psk := *cfg.PSK
		h.psk = &psk
	}
	h.sym.mixHash(cfg.Prologue)
	for _, initiator := range []bool{true, false} { // the order of section 5.3
		switch {
		case !cfg.Pattern.known(initiator):
		case initiator == cfg.Initiator:
			h.sym.mixHash(cfg.Static.PublicKey().Bytes())
		default:
			h.sym.mixHash(cfg.RemoteStatic.Bytes())
		}
	}
	return h, nil
}

func (cfg *Config) validate() error {
	p := cfg.Pattern
	if p == nil || len(p.messages) == 0 {
		return errors.New("noise: no pattern")
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("noise: "+format, args...))
		}
	}
	fault(!cfg.Suite.Valid(), "unknown suite %d", byte(cfg.Suite))
	uses := p.known(cfg.Initiator) || p.sendsStatic(cfg.Initiator)
	fault(uses && cfg.Static == nil, "pattern %s needs a static key", p)
	fault(!uses && cfg.Static != nil, "pattern %s uses no static key of this side", p)
	fault(cfg.Static != nil && cfg.Static.Curve() != ecdh.X25519(), "static key is not an X25519 key")
	known := p.known(!cfg.Initiator)
	fault(known && cfg.RemoteStatic == nil, "pattern %s needs the peer's static key", p)
	fault(!known && cfg.RemoteStatic != nil, "pattern %s would not check the peer's static key", p)
	fault(cfg.RemoteStatic != nil && cfg.RemoteStatic.Curve() != ecdh.X25519(), "the peer's static key is not an X25519 key")
	fault(p.has(tokenPSK) && cfg.PSK == nil, "pattern %s needs a pre-shared key", p)
	fault(!p.has(tokenPSK) && cfg.PSK != nil, "pattern %s uses no pre-shared key", p)
	return errors.Join(faults...)
}

// overhead returns how long the next message is without its payload, in bytes.
func (h *Handshake) overhead() int {
	size, tag := 0, 0
	if h.sym.hasKey() {
		tag = Overhead
	}
	for _, t := range h.pattern.messages[h.index] {
		switch t {
		case tokenE:
			size += keyLen
			if h.psk != nil {
				tag = Overhead
			}
		case tokenS:
			size += keyLen + tag
		case tokenE1:
			size += mlkem.EncapsulationKeySize768 + tag
		case tokenEKEM1:
			size += mlkem.CiphertextSize768 + tag
			tag = Overhead
		default:
			tag = Overhead
		}
	}
	return size + tag
}

// write returns the next message with payload in it.
func (h *Handshake) write(payload []byte) ([]byte, error) {
	msg := make([]byte, 0, h.overhead()+len(payload))
	for _, t := range h.pattern.messages[h.index] {
		var err error
		switch t {
		case tokenE:
			msg, err = h.writeE(msg)
		case tokenE1:
			msg, err = h.writeE1(msg)
		case tokenEKEM1:
			msg, err = h.writeEKEM1(msg)
		case tokenS:
			// s: EncryptAndHash(s.public_key).
			msg, err = h.sym.encryptAndHash(msg, h.static.PublicKey().Bytes())
		default:
			err = h.mix(t)
		}
		if err != nil {
			return nil, err
		}
	}
	return h.sym.encryptAndHash(msg, payload)
}

// read takes the next message apart and returns its payload in memory of its
// own. The message is at least as long as overhead says.
func (h *Handshake) read(msg []byte) ([]byte, error) {
	for _, t := range h.pattern.messages[h.index] {
		var err error
		switch t {
		case tokenE:
			msg, err = h.readE(msg)
		case tokenE1:
			msg, err = h.readE1(msg)
		case tokenEKEM1:
			msg, err = h.readEKEM1(msg)
		case tokenS:
			msg, err = h.readS(msg)
		default:
			err = h.mix(t)
		}
		if err != nil {
			return nil, err
		}
	}
	return h.sym.decryptAndHash(msg)
}

// e: e = GENERATE_KEYPAIR(), append e.public_key, MixHash(e.public_key); in a
// PSK handshake MixKey(e.public_key) besides (section 9.2).
func (h *Handshake) writeE(msg []byte) ([]byte, error) {
	var err error
	if h.ephemeral, err = h.hooks.ephemeral(); err != nil {
		return nil, fmt.Errorf("generating an ephemeral key: %w", err)
	}
	public := h.ephemeral.PublicKey().Bytes()
	return append(msg, public...), h.mixE(public)
}

func (h *Handshake) readE(msg []byte) ([]byte, error) {
	var err error
	if h.remoteEphemeral, err = ecdh.X25519().NewPublicKey(msg[:keyLen]); err != nil {
		return nil, fmt.Errorf("%w: e: %w", ErrKey, err)
	}
	return msg[keyLen:], h.mixE(msg[:keyLen])
}

func (h *Handshake) mixE(public []byte) error {
	h.sym.mixHash(public)
	if h.psk != nil {
		return h.sym.mixKey(public)
	}
	return nil
}

// e1: e1 = GENERATE_KEM_KEYPAIR(), EncryptAndHash(e1.public_key). In XXhfs there
// is no key yet, so the encapsulation key travels in the clear and is hashed.
func (h *Handshake) writeE1(msg []byte) ([]byte, error) {
	var err error
	if h.kem, err = h.hooks.kem(); err != nil {
		return nil, fmt.Errorf("generating an encapsulation key: %w", err)
	}
	return h.sym.encryptAndHash(msg, h.kem.EncapsulationKey().Bytes())
}

func (h *Handshake) readE1(msg []byte) ([]byte, error) {
	public, rest, err := h.readField(msg, mlkem.EncapsulationKeySize768)
	if err != nil {
		return nil, err
	}
	// NewEncapsulationKey768 is the check of FIPS 203 section 7.2.
	if h.remoteKEM, err = mlkem.NewEncapsulationKey768(public); err != nil {
		return nil, fmt.Errorf("%w: e1: %w", ErrKey, err)
	}
	return rest, nil
}

// ekem1: ciphertext, kem_output = ENCAPSULATE(re1),
// EncryptAndHash(ciphertext), MixKey(kem_output). The ciphertext goes out under
// the key that ee made; only what follows is under the KEM's secret too.
func (h *Handshake) writeEKEM1(msg []byte) ([]byte, error) {
	if h.remoteKEM == nil {
		return nil, fmt.Errorf("%w: no encapsulation key was read", ErrKey)
	}
	secret, ciphertext, err := h.hooks.encapsulate(h.remoteKEM)
	if err != nil {
		return nil, fmt.Errorf("encapsulating: %w", err)
	}
	defer clear(secret)
	if msg, err = h.sym.encryptAndHash(msg, ciphertext); err != nil {
		return nil, err
	}
	return msg, h.sym.mixKey(secret)
}

// ekem1: ciphertext = DecryptAndHash(...), MixKey(DECAPSULATE(e1, ciphertext)).
// A ciphertext that does not belong to e1 gives a secret that nobody else
// knows (implicit rejection), and the next decryption fails.
func (h *Handshake) readEKEM1(msg []byte) ([]byte, error) {
	if h.kem == nil {
		return nil, fmt.Errorf("%w: no encapsulation key was written", ErrKey)
	}
	ciphertext, rest, err := h.readField(msg, mlkem.CiphertextSize768)
	if err != nil {
		return nil, err
	}
	secret, err := h.kem.Decapsulate(ciphertext)
	if err != nil {
		return nil, fmt.Errorf("decapsulating: %w", err)
	}
	defer clear(secret)
	return rest, h.sym.mixKey(secret)
}

// s: rs = DecryptAndHash(...).
func (h *Handshake) readS(msg []byte) ([]byte, error) {
	public, rest, err := h.readField(msg, keyLen)
	if err != nil {
		return nil, err
	}
	if h.remoteStatic, err = ecdh.X25519().NewPublicKey(public); err != nil {
		return nil, fmt.Errorf("%w: s: %w", ErrKey, err)
	}
	return rest, nil
}

// readField returns DecryptAndHash of the n bytes at the front of msg, or n
// and a tag when there is a key, and what comes after them.
func (h *Handshake) readField(msg []byte, n int) (field, rest []byte, err error) {
	if h.sym.hasKey() {
		n += Overhead
	}
	field, err = h.sym.decryptAndHash(msg[:n])
	return field, msg[n:], err
}

// mix does the tokens that put nothing into the message.
//
//	ee:  MixKey(DH(e, re))
//	es:  MixKey(DH(e, rs)) for the initiator, MixKey(DH(s, re)) for the responder
//	se:  MixKey(DH(s, re)) for the initiator, MixKey(DH(e, rs)) for the responder
//	ss:  MixKey(DH(s, rs))
//	psk: MixKeyAndHash(psk)
func (h *Handshake) mix(t token) error {
	ours, theirs := h.ephemeral, h.remoteEphemeral
	switch {
	case t == tokenPSK:
		return h.sym.mixKeyAndHash(h.psk[:])
	case t == tokenSS:
		ours, theirs = h.static, h.remoteStatic
	case (t == tokenES) == h.initiator && t != tokenEE:
		theirs = h.remoteStatic
	case t != tokenEE:
		ours = h.static
	}
	if ours == nil || theirs == nil {
		return fmt.Errorf("%w: missing", ErrKey)
	}
	// ECDH refuses the all-zero secret that a low-order point gives.
	secret, err := ours.ECDH(theirs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	defer clear(secret)
	return h.sym.mixKey(secret)
}

// RemoteStatic returns a copy of the peer's static X25519 key, 32 bytes, or nil
// while it is not known and after a failure. It is what the peer proved to hold
// once a message that has es, se or ss after it was read; whose key it is, is
// for the caller to check.
func (h *Handshake) RemoteStatic() []byte {
	if h.remoteStatic == nil {
		return nil
	}
	return h.remoteStatic.Bytes()
}

// Hash returns a copy of the handshake hash, 32 bytes that are the same for
// both sides of this handshake and for no other (Noise section 11.2), or nil
// while the handshake is not complete. It is not secret.
func (h *Handshake) Hash() []byte { return bytes.Clone(h.hash) }
