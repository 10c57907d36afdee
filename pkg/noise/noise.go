// Package noise owns the Noise handshake and the ciphers that come out of it:
// bytes in, bytes out. It follows The Noise Protocol Framework, revision 34,
// and for the tokens e1 and ekem1 the extension "KEM-based Hybrid Forward
// Secrecy for Noise", revision 1, with ML-KEM-768 (FIPS 203) as the KEM.
//
// Culvert speaks [XXhfs] only:
//
//	Noise_XXhfs_25519+MLKEM768_AESGCM_SHA256
//	Noise_XXhfs_25519+MLKEM768_ChaChaPoly_SHA256
//
//	-> e, e1                      e 32, e1 1184, payload: 1,216 bytes when the payload is empty
//	<- e, ee, ekem1, s, es        e 32, ekem1 1088+16, s 32+16, payload+16
//	-> s, se                      s 32+16, payload+16
//
// What XXhfs promises: confidentiality against an eavesdropper who records
// today and has a quantum computer later, since the keys depend on both an
// X25519 and an ML-KEM-768 secret. What it does not promise: authentication is
// classical. It rests on X25519 static keys alone, so that somebody who has a
// quantum computer at the time of the handshake can pose as either side. The
// payload of message 1 is neither encrypted nor authenticated when it is read;
// the payload of message 2 is encrypted, but may go to anybody; a static key
// says who the peer is only to a caller who checks it.
//
// The classical patterns are here because their public test vectors run
// through the same code; nothing that Culvert puts on a wire uses them.
//
// The code stands in this order: patterns are tables (pattern.go), a symmetric
// state mixes keys and hashes (symmetric.go), tokens act on it (handshake.go),
// and everything that a caller or a peer can do wrong is caught in one place
// (guard.go).
//
// This package does no I/O, knows no deadlines, frames no messages, and does
// not decide whether a static key is the right one.
package noise

import "errors"

const (
	// MaxMessage is the longest handshake message, and the longest output of
	// Seal, in bytes (Noise section 3).
	MaxMessage = 65535
	// Overhead is what encryption adds to a plaintext, in bytes.
	Overhead = 16

	keyLen = 32 // X25519 public keys, chaining keys, cipher keys
)

// What can go wrong. A handshake or cipher that has failed for good returns
// the error it failed with from every later call.
var (
	// ErrAuthentication says that a ciphertext is not what the holder of the
	// key wrote at this place. Final.
	ErrAuthentication = errors.New("noise: message authentication failed")
	// ErrTooShort says that a message is too short for its pattern, or a
	// ciphertext for its tag. Final.
	ErrTooShort = errors.New("noise: message too short")
	// ErrTooLong says that a message is or would be longer than MaxMessage.
	// Final where it was read; where it would be written nothing has happened.
	ErrTooLong = errors.New("noise: message too long")
	// ErrKey says that a key of the peer's is unusable: a low-order X25519
	// point or an encapsulation key that FIPS 203 section 7.2 rejects. Final.
	ErrKey = errors.New("noise: unusable public key")
	// ErrNonce says that a cipher has used all of its 2^64-1 nonces. Final.
	ErrNonce = errors.New("noise: nonces exhausted")
	// ErrTurn says that the pattern has the other side write now. Nothing has
	// happened.
	ErrTurn = errors.New("noise: out of turn")
	// ErrComplete says that no message is left in the handshake. Nothing has
	// happened.
	ErrComplete = errors.New("noise: handshake is complete")
	// ErrIncomplete says that messages are left in the handshake. Nothing has
	// happened.
	ErrIncomplete = errors.New("noise: handshake is not complete")
	// ErrSplit says that the ciphers were handed out already. Handing them out
	// twice would use every nonce twice.
	ErrSplit = errors.New("noise: ciphers already split")
	// ErrOneWay says that the pattern lets only the initiator send.
	ErrOneWay = errors.New("noise: pattern is one-way")
	// ErrNoKey says that a cipher was not made by Split.
	ErrNoKey = errors.New("noise: cipher has no key")
)

// noCopy makes go vet complain about copies. Two copies of a cipher would use
// the same nonces.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
