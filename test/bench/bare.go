//go:build linux

package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"github.com/culvert-net/culvert/internal/bench/rig"
	"github.com/culvert-net/culvert/internal/sock"
)

// bareCommand makes this program one half of a pair that does nothing but what
// no such pair can leave out: it reads, seals records of AES-256-GCM, and writes,
// by the cheapest system calls there are. It has no handshake, one connection
// for each stream, and a key that everybody knows. What it leaves of the machine
// is all that Culvert could have.
const bareCommand = "bare-records"

const (
	bareNear  = "near"
	bareFar   = "far"
	bareBytes = 64 << 10
)

// bare serves one half, on one processor as Culvert's daemons do: with more it
// takes more time for the same.
func bare(half, listen, target string) error {
	runtime.GOMAXPROCS(1)
	return accept(listen, func(near *net.TCPConn) {
		defer near.Close()
		var d net.Dialer
		nc, err := d.DialContext(context.Background(), "tcp", target)
		if err != nil {
			return
		}
		defer nc.Close()
		plain, sealed := near, nc.(*net.TCPConn)
		if half == bareFar {
			plain, sealed = sealed, plain
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			ends(sealed, plain, sealRecords(sealed, plain))
		}()
		ends(plain, sealed, openRecords(plain, sealed))
		<-done
	})
}

// ends passes on how src has ended.
func ends(dst, src *net.TCPConn, err error) {
	if err != nil {
		_ = dst.Close()
		_ = src.Close()
		return
	}
	_ = dst.CloseWrite() // the peer has gone, if this fails
}

func bareCipher() cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	if err == nil {
		var gcm cipher.AEAD
		if gcm, err = cipher.NewGCM(block); err == nil {
			return gcm
		}
	}
	panic(err) // of a constant
}

// A record is a length u32 and that much ciphertext.
const bareHead = 4

func sealRecords(dst, src *net.TCPConn) error {
	gcm, in, out := bareCipher(), sock.NewReader(src), sock.NewWriter(dst)
	plain, wire := make([]byte, bareBytes), make([]byte, bareHead+bareBytes+gcm.Overhead())
	nonce := make([]byte, gcm.NonceSize())
	for n := uint64(0); ; n++ {
		k, err := in.Read(plain)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(nonce, n)
		sealed := gcm.Seal(wire[bareHead:bareHead], nonce, plain[:k], nil)
		binary.BigEndian.PutUint32(wire, uint32(len(sealed)))
		if _, err := out.Write(wire[:bareHead+len(sealed)]); err != nil {
			return err
		}
	}
}

func openRecords(dst, src *net.TCPConn) error {
	gcm, in, out := bareCipher(), sock.NewReader(src), sock.NewWriter(dst)
	wire := make([]byte, 2*(bareHead+bareBytes+gcm.Overhead()))
	nonce := make([]byte, gcm.NonceSize())
	have := 0
	for n := uint64(0); ; {
		k, err := in.Read(wire[have:])
		if err == io.EOF && have == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		have += k
		off := 0
		for have-off >= bareHead {
			size := int(binary.BigEndian.Uint32(wire[off:]))
			if size > bareBytes+gcm.Overhead() {
				return fmt.Errorf("a record of %d bytes", size)
			}
			if have-off < bareHead+size {
				break
			}
			binary.LittleEndian.PutUint64(nonce, n)
			sealed := wire[off+bareHead:][:size]
			plain, err := gcm.Open(sealed[:0], nonce, sealed, nil)
			if err != nil {
				return err
			}
			if _, err := out.Write(plain); err != nil {
				return err
			}
			n++
			off += bareHead + size
		}
		have = copy(wire, wire[off:have])
	}
}

func barePair(ch *rig.Chain) string {
	self, err := os.Executable()
	ch.Fail(err)
	near, far := ch.Addr(), ch.Addr()
	ch.Run(self, bareCommand, bareFar, far, ch.Target())
	ch.Run(self, bareCommand, bareNear, near, between(ch)(far))
	return near
}
