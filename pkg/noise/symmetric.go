package noise

import (
	"crypto/hmac"
	"crypto/sha256"
)

// A symmetric is Noise's SymmetricState (section 5.2). It and what it holds
// belong to one handshake.
type symmetric struct {
	suite  Suite
	ck     [keyLen]byte      // chaining key
	h      [sha256.Size]byte // handshake hash
	cipher *Cipher           // nil until the first mixKey: Noise's empty key
}

// newSymmetric is InitializeSymmetric(protocol).
func newSymmetric(protocol string, suite Suite) *symmetric {
	s := &symmetric{suite: suite}
	if len(protocol) <= len(s.h) {
		copy(s.h[:], protocol)
	} else {
		s.h = sha256.Sum256([]byte(protocol))
	}
	s.ck = s.h
	return s
}

// hasKey is HasKey().
func (s *symmetric) hasKey() bool { return s.cipher != nil }

// mixHash sets h = HASH(h || data).
func (s *symmetric) mixHash(data []byte) {
	d := sha256.New()
	d.Write(s.h[:])
	d.Write(data)
	d.Sum(s.h[:0])
}

// mixKey sets ck, k = HKDF(ck, ikm, 2), and the nonce to 0.
func (s *symmetric) mixKey(ikm []byte) error {
	var k [keyLen]byte
	defer clear(k[:])
	deriveKeys(&s.ck, ikm, &s.ck, &k)
	return s.setKey(&k)
}

// mixKeyAndHash sets ck, temp, k = HKDF(ck, ikm, 3) and mixes temp into h.
func (s *symmetric) mixKeyAndHash(ikm []byte) error {
	var temp, k [keyLen]byte
	defer clear(temp[:])
	defer clear(k[:])
	deriveKeys(&s.ck, ikm, &s.ck, &temp, &k)
	s.mixHash(temp[:])
	return s.setKey(&k)
}

func (s *symmetric) setKey(k *[keyLen]byte) error {
	c, err := newCipher(s.suite, k)
	if err != nil {
		return err
	}
	s.cipher = c
	return nil
}

// encryptAndHash appends to dst the plaintext, encrypted when there is a key,
// and mixes what it appended into h.
func (s *symmetric) encryptAndHash(dst, plaintext []byte) ([]byte, error) {
	n := len(dst)
	if s.hasKey() {
		var err error
		if dst, err = s.cipher.Seal(dst, s.h[:], plaintext); err != nil {
			return nil, err
		}
	} else {
		dst = append(dst, plaintext...)
	}
	s.mixHash(dst[n:])
	return dst, nil
}

// decryptAndHash returns the plaintext of data in memory of its own, and mixes
// data into h.
func (s *symmetric) decryptAndHash(data []byte) ([]byte, error) {
	var plaintext []byte
	if s.hasKey() {
		var err error
		if plaintext, err = s.cipher.Open(nil, s.h[:], data); err != nil {
			return nil, err
		}
	} else {
		plaintext = append(plaintext, data...)
	}
	s.mixHash(data)
	return plaintext, nil
}

// split returns Noise's two CipherStates: the initiator's for sending, and the
// responder's.
func (s *symmetric) split() (initiator, responder *Cipher, err error) {
	var k1, k2 [keyLen]byte
	defer clear(k1[:])
	defer clear(k2[:])
	deriveKeys(&s.ck, nil, &k1, &k2)
	if initiator, err = newCipher(s.suite, &k1); err != nil {
		return nil, nil, err
	}
	if responder, err = newCipher(s.suite, &k2); err != nil {
		return nil, nil, err
	}
	return initiator, responder, nil
}

// drop forgets the keys. The hash is no secret and stays.
func (s *symmetric) drop() {
	clear(s.ck[:])
	s.cipher = nil
}

// deriveKeys is Noise's HKDF(ck, ikm, len(out)) (section 4.3), written into out. The
// first output may be ck itself.
func deriveKeys(ck *[keyLen]byte, ikm []byte, out ...*[keyLen]byte) {
	extract := hmac.New(sha256.New, ck[:])
	extract.Write(ikm)
	var temp, block [sha256.Size]byte
	defer clear(temp[:])
	defer clear(block[:])
	expand := hmac.New(sha256.New, extract.Sum(temp[:0]))
	for i, o := range out {
		expand.Reset()
		if i > 0 {
			expand.Write(block[:])
		}
		expand.Write([]byte{byte(i + 1)})
		expand.Sum(block[:0])
		*o = block
	}
}
