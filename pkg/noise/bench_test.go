package noise

import (
	"fmt"
	"testing"
)

// BenchmarkHandshake is both sides of one handshake, with new randomness.
func BenchmarkHandshake(b *testing.B) {
	for _, p := range []*Pattern{XXhfs, XX} {
		for _, s := range suites {
			b.Run(fmt.Sprintf("pattern=%s/suite=%s", p, s), func(b *testing.B) {
				ci, cr := fixed.configs(b, p, s)
				ci.hooks, cr.hooks = hooks{}, hooks{}
				b.ReportAllocs()
				for b.Loop() {
					i, r := mustNew(b, ci), mustNew(b, cr)
					mustDrive(b, i, r)
					mustSplit(b, i)
					mustSplit(b, r)
				}
			})
		}
	}
}

// eachSize runs a benchmark of a cipher for each suite and size of plaintext,
// with room for a message.
func eachSize(b *testing.B, run func(b *testing.B, send, recv *Cipher, buf []byte)) {
	for _, s := range suites {
		for _, size := range []int{64, 1 << 10, 4 << 10, 16 << 10, MaxMessage - Overhead} {
			b.Run(fmt.Sprintf("suite=%s/size=%d", s, size), func(b *testing.B) {
				send, recv := cipherPair(b, s)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, send, recv, make([]byte, size, size+Overhead))
			})
		}
	}
}

// BenchmarkSeal seals in place.
func BenchmarkSeal(b *testing.B) {
	eachSize(b, func(b *testing.B, send, _ *Cipher, buf []byte) {
		for b.Loop() {
			if _, err := send.Seal(buf[:0], nil, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen opens the same message again and again: the nonce is put back,
// and the ciphertext kept beside the plaintext.
func BenchmarkOpen(b *testing.B) {
	eachSize(b, func(b *testing.B, send, recv *Cipher, buf []byte) {
		ct, err := send.Seal(nil, nil, buf)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			recv.n = 0
			if _, err := recv.Open(buf[:0], nil, ct); err != nil {
				b.Fatal(err)
			}
		}
	})
}
