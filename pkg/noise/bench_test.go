package noise

import (
	"fmt"
	"testing"
)

// BenchmarkHandshake is both sides of one handshake, with new randomness.
func BenchmarkHandshake(b *testing.B) {
	for _, p := range []*Pattern{XXhfs, XX} {
		for _, s := range suites {
			b.Run(fmt.Sprintf("%s/%s", p, s), func(b *testing.B) {
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

var benchSizes = []int{64, 1 << 10, 4 << 10, 16 << 10, MaxMessage - Overhead}

func BenchmarkSeal(b *testing.B) {
	for _, s := range suites {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", s, size), func(b *testing.B) {
				send, _ := cipherPair(b, s)
				buf := make([]byte, size+Overhead)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := send.Seal(buf[:0], nil, buf[:size]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOpen opens the same message again and again: the nonce is put back,
// and the ciphertext kept beside the plaintext.
func BenchmarkOpen(b *testing.B) {
	for _, s := range suites {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", s, size), func(b *testing.B) {
				send, recv := cipherPair(b, s)
				ct, err := send.Seal(nil, nil, make([]byte, size))
				if err != nil {
					b.Fatal(err)
				}
				out := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					recv.n = 0
					if _, err := recv.Open(out[:0], nil, ct); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
