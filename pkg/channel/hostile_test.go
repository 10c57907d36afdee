package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/noise"
)

// forge seals plaintext records with c's own cipher: what a peer that holds
// the keys can send. c itself must not send any more.
func forge(t testing.TB, c *Conn, plain ...[]byte) (wire []byte) {
	t.Helper()
	for _, p := range plain {
		sealed, err := c.w.cipher.Seal(nil, nil, p)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(binary.BigEndian.AppendUint16(wire, uint16(len(sealed))), sealed...)
	}
	return wire
}

func record(t recordType, body string) []byte { return append([]byte{byte(t)}, body...) }

// forgery returns a Conn that has been sent these records by its peer, and
// the peer's raw path.
func forgery(t *testing.T, plain ...[]byte) (*Conn, *Conn, net.Conn) {
	t.Helper()
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	if _, err := a.Write(forge(t, x, plain...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = y.Close(); _ = x.Close() })
	return y, x, a
}

func TestPeerThatBreaksTheProtocol(t *testing.T) {
	tests := []struct {
		name  string
		plain [][]byte
		want  string // what may be delivered before the error
	}{
		{"CLOSE too early", [][]byte{record(typeData, "abc"), appendClose(nil, 4, code.OK, "")}, "abc"},
		{"CLOSE too late", [][]byte{record(typeData, "abc"), appendClose(nil, 2, code.OK, "")}, "abc"},
		{"CLOSE cut", [][]byte{appendClose(nil, 0, code.OK, "")[:closeFixed]}, ""},
		{"CLOSE with a long reason", [][]byte{append(appendClose(nil, 0, code.OK, ""), make([]byte, code.MaxReason+1)...)}, ""},
		{"REFUSED after data", [][]byte{record(typeData, "abc"), appendRefused(nil, code.Busy, "")}, "abc"},
		{"empty DATA", [][]byte{record(typeData, "")}, ""},
		{"short PING", [][]byte{record(typePing, "1234567")}, ""},
		{"long PONG", [][]byte{record(typePong, "123456789")}, ""},
		{"ACK", [][]byte{record(typeAck, "12345678")}, ""},
		{"type 0", [][]byte{record(0, "x")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y, x, _ := forgery(t, tt.plain...)
			got, err := io.ReadAll(y)
			if string(got) != tt.want || !errors.Is(err, ErrProtocol) {
				t.Errorf("ReadAll = %q, %v; want %q, ErrProtocol", got, err, tt.want)
			}
			checkClosesWith(t, y, x, code.Protocol)
		})
	}
}

// checkClosesWith calls y's Close and wants x to be told why.
func checkClosesWith(t *testing.T, y, x *Conn, want code.Code) {
	t.Helper()
	_ = y.Close()
	_, err := io.ReadAll(x)
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != want {
		t.Errorf("the peer reads %v, want to be told %v", err, want)
	}
}

// A record that was changed on the way must not turn into a clean end of the
// other direction.
func TestForgedRecordIsNoCleanEnd(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	wire := forge(t, x, record(typeData, "abc"))
	wire[5] ^= 1
	if _, err := a.Write(wire); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Read(make([]byte, 9)); !errors.Is(err, noise.ErrAuthentication) {
		t.Errorf("Read = %v, want ErrAuthentication", err)
	}
	checkClosesWith(t, y, x, code.Protocol)
	_ = x.Close()
}

func TestNothingAfterClose(t *testing.T) {
	y, _, _ := forgery(t, record(typeData, "abc"), appendClose(nil, 3, code.OK, ""), record(typeData, "def"))
	got, err := io.ReadAll(y)
	if err != nil || string(got) != "abc" {
		t.Errorf("ReadAll = %q, %v; want abc, nil", got, err)
	}
	if _, err := y.Read(make([]byte, 9)); err != io.EOF {
		t.Errorf("Read after the end = %v, want io.EOF", err)
	}
}

// A peer that floods, and reads nothing itself, costs a buffer and a
// goroutine; data comes through, and the end is prompt.
func TestFloodOfPings(t *testing.T) {
	a, b := net.Pipe() // no kernel buffer: the PONGs block at once
	x, y := connPair(t, a, b, Options{Linger: 20 * time.Millisecond})
	ping := record(typePing, "12345678")
	for range 50 {
		batch := bytes.Clone(forge(t, x, ping, ping, ping, ping, record(typeData, "x")))
		go func() { _, _ = a.Write(batch) }()
		if n, err := io.ReadFull(y, make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("Read = %d, %v", n, err)
		}
	}
	var flood sync.WaitGroup
	flood.Go(func() {
		for {
			if _, err := a.Write(forge(t, x, ping, ping, ping, ping)); err != nil {
				return
			}
		}
	})
	start := time.Now()
	if err := y.Close(); err == nil {
		t.Error("Close = nil, want an error: the peer does not read")
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("Close took %s", d)
	}
	_ = a.Close()
	flood.Wait()
	_ = x.Close()
}

func TestRecordsOfOneByte(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	const n = 20_000
	var wire, want []byte
	for i := range n {
		wire = append(wire, forge(t, x, record(typeData, string([]byte{byte(i)})))...)
		want = append(want, byte(i))
	}
	wire = append(wire, forge(t, x, appendClose(nil, n, code.OK, ""))...)
	go func() { _, _ = a.Write(wire) }()
	got, err := io.ReadAll(y)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAll = %d bytes, %v; want %d", len(got), err, len(want))
	}
	_ = y.Close()
	_ = x.Close()
}

// Bytes that are no record yet are no sign of life: anyone on the way can
// send them one by one.
func TestDrippingPathIsFoundDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		x, y := connPair(t, a, b, Options{Linger: time.Second})
		x.SetKeepAlive(0, 10*time.Second)
		var dripper sync.WaitGroup
		dripper.Go(func() {
			for range 60 {
				if _, err := b.Write([]byte{0xff}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
			_ = b.Close()
		})
		start := time.Now()
		_, err := x.Read(make([]byte, 1))
		if !errors.Is(err, ErrDead) {
			t.Errorf("Read = %v, want ErrDead", err)
		}
		if got := time.Since(start); got < 10*time.Second || got > 12*time.Second {
			t.Errorf("noticed after %s, want 10 s", got)
		}
		_, _ = x.Write([]byte("finds out"))
		if _, err := x.Write([]byte("knows")); !errors.Is(err, ErrDead) {
			t.Errorf("Write = %v, want ErrDead", err)
		}
		_ = x.Close()
		_ = y.Close()
		dripper.Wait()
	})
}

// muteConn fails every Write from some time on and says nothing else.
type muteConn struct {
	net.Conn
	mute func() bool
}

var errMute = errors.New("mute")

func (c muteConn) Write(p []byte) (int, error) {
	if c.mute() {
		return 0, errMute
	}
	return c.Conn.Write(p)
}

// That PINGs cannot be sent any more does not end the watch over the peer.
func TestDeadIsFoundWithoutPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		start := time.Now()
		x, y := connPair(t, muteConn{a, func() bool { return time.Since(start) > time.Second }}, b, Options{Linger: time.Second})
		x.SetKeepAlive(5*time.Second, 12*time.Second)
		_ = x.SetReadDeadline(start.Add(time.Minute))
		if _, err := x.Read(make([]byte, 1)); !errors.Is(err, ErrDead) {
			t.Errorf("Read = %v, want ErrDead", err)
		}
		_ = x.Close()
		_ = y.Close()
	})
}

func TestBothSidesCountTheSameBytesUnderAKey(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	for range 100 {
		if _, err := x.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(y, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	y.readMu.Lock()
	if got, want := y.keyUsed.Load(), x.w.keyBytes.Load(); got != want {
		t.Errorf("the receiver counts %d bytes under the key, the sender %d", got, want)
	}
	y.readMu.Unlock()
	closeBoth(t, x, y)
}

// At the end of a key what was accepted arrives, and the peer is told why it
// is the end.
func TestKeyExhausted(t *testing.T) {
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	x.w.keyBytes.Store(maxKeyBytes - keyReserve - 100_000)
	accepted := make(chan uint64, 1)
	go func() {
		var sum uint64
		for {
			n, err := x.Write(make([]byte, 30_000))
			sum += uint64(n)
			if err != nil {
				if !errors.Is(err, ErrKeyExhausted) {
					t.Errorf("Write = %v, want ErrKeyExhausted", err)
				}
				break
			}
		}
		_ = x.Close()
		accepted <- sum
	}()
	got, err := io.ReadAll(y)
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != code.KeyExhausted {
		t.Errorf("the peer reads %v, want to be told %v", err, code.KeyExhausted)
	}
	_ = y.Close()
	if want := <-accepted; uint64(len(got)) != want || want < 90_000 {
		t.Errorf("%d bytes arrived, %d were accepted", len(got), want)
	}
}

func TestCutReason(t *testing.T) {
	for _, r := range []string{"x", "é", "あ", "\U0001f6b0"} {
		s := bytes.Repeat([]byte(r), code.MaxReason)
		want := string(s[:code.MaxReason/len(r)*len(r)])
		if got := code.CutReason(string(s)); got != want {
			t.Errorf("%s: cut to %d bytes, want %d", r, len(got), len(want))
		}
	}
	if got := code.CutReason(string(bytes.Repeat([]byte{0x80}, 2*code.MaxReason))); len(got) > code.MaxReason {
		t.Errorf("not UTF-8: cut to %d bytes", len(got))
	}
}
