package noise

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// A Suite names the AEAD of a handshake and its ciphers. The rest is fixed:
// SHA-256, X25519 and, in an hfs pattern, ML-KEM-768. The numbers travel in
// the preamble (docs/protocol.md).
type Suite byte

// The suites.
const (
	AESGCM     Suite = 1 // AES-256-GCM
	ChaChaPoly Suite = 2 // ChaCha20-Poly1305
)

// String returns the name that Noise gives the AEAD, or "suite_N" for a number
// without one.
func (s Suite) String() string {
	switch s {
	case AESGCM:
		return "AESGCM"
	case ChaChaPoly:
		return "ChaChaPoly"
	}
	return fmt.Sprintf("suite_%d", byte(s))
}

// Valid reports whether s is a suite of this package.
func (s Suite) Valid() bool { return s == AESGCM || s == ChaChaPoly }

// CPUHasAES reports whether this machine computes AES-GCM in hardware, so that
// AESGCM is the faster suite, and one that leaks nothing through its timing.
func CPUHasAES() bool {
	switch runtime.GOARCH {
	case "amd64":
		return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3
	case "arm64":
		return cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	case "s390x":
		return cpu.S390X.HasAES && cpu.S390X.HasAESCTR && cpu.S390X.HasGHASH
	case "ppc64", "ppc64le":
		return true
	}
	return false
}

// newAEAD returns the suite's AEAD under key. The key is not kept.
func (s Suite) newAEAD(key *[keyLen]byte) (cipher.AEAD, error) {
	switch s {
	case AESGCM:
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	case ChaChaPoly:
		return chacha20poly1305.New(key[:])
	}
	return nil, fmt.Errorf("noise: unknown suite %d", byte(s))
}

// putNonce writes the 12-byte form of n: four zero bytes, then n, big-endian
// for AESGCM and little-endian for ChaChaPoly (Noise section 12).
func (s Suite) putNonce(nonce *[12]byte, n uint64) {
	if s == AESGCM {
		binary.BigEndian.PutUint64(nonce[4:], n)
		return
	}
	binary.LittleEndian.PutUint64(nonce[4:], n)
}
