package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// capture runs a handshake and returns y, whose path is a pipe that the test
// feeds, with x's records as they left: one per Write.
func capture(t *testing.T, writes ...string) (y *Conn, feed net.Conn, records [][]byte) {
	t.Helper()
	a, mid1 := tcpPair(t)
	mid2, b := tcpPair(t)
	go func() { _, _ = io.Copy(mid1, mid2) }()
	handshaken := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			buf := make([]byte, 64<<10)
			n, err := mid1.Read(buf)
			select {
			case <-handshaken:
				records = append(records, buf[:n])
				if err != nil {
					return
				}
			default:
				_, _ = mid2.Write(buf[:n])
			}
		}
	}()
	x, y := connPair(t, a, b, Options{Linger: 10 * time.Millisecond})
	close(handshaken)
	for _, s := range writes {
		if _, err := x.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	_ = x.Close()
	<-stopped
	_ = mid1.Close()
	t.Cleanup(func() { _ = mid2.Close(); _ = y.Close() })
	return y, mid2, split(t, bytes.Join(records, nil))
}

// split cuts a byte stream into records.
func split(t *testing.T, b []byte) (records [][]byte) {
	t.Helper()
	for len(b) > 0 {
		n := headerLen + int(binary.BigEndian.Uint16(b))
		if len(b) < n {
			t.Fatalf("%d bytes are no whole record", len(b))
		}
		records, b = append(records, b[:n]), b[n:]
	}
	return records
}

// readAll sends wire to y, ends the path and returns what y delivers.
func readAll(t *testing.T, y *Conn, feed net.Conn, wire []byte) ([]byte, error) {
	t.Helper()
	if _, err := feed.Write(wire); err != nil {
		t.Fatal(err)
	}
	_ = feed.(*net.TCPConn).CloseWrite()
	var got []byte
	buf := make([]byte, 100)
	for {
		n, err := y.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got, err
		}
	}
}

func TestUntouchedRecordsArrive(t *testing.T) {
	y, feed, records := capture(t, "first", "second")
	if len(records) != 3 {
		t.Fatalf("%d records, want 3: two of data and the close", len(records))
	}
	got, err := readAll(t, y, feed, bytes.Join(records, nil))
	if err != io.EOF || string(got) != "firstsecond" {
		t.Errorf("Read = %q, %v; want everything and io.EOF", got, err)
	}
}

func TestTamperedRecords(t *testing.T) {
	join := func(r ...[]byte) []byte { return bytes.Join(r, nil) }
	tests := []struct {
		name string
		wire func(r [][]byte) []byte
		want string // what may be delivered before the error
	}{
		{"first dropped", func(r [][]byte) []byte { return join(r[1], r[2]) }, ""},
		{"second dropped", func(r [][]byte) []byte { return join(r[0], r[2]) }, "first"},
		{"close dropped", func(r [][]byte) []byte { return join(r[0], r[1]) }, "firstsecond"},
		{"first repeated", func(r [][]byte) []byte { return join(r[0], r[0], r[1], r[2]) }, "first"},
		{"swapped", func(r [][]byte) []byte { return join(r[1], r[0], r[2]) }, ""},
		{"close first", func(r [][]byte) []byte { return join(r[2], r[0], r[1]) }, ""},
		{"empty record", func(r [][]byte) []byte { return join(r[0], []byte{0, 0}, r[1]) }, "first"},
		{"tag only", func(r [][]byte) []byte { return join(r[0], []byte{0, 16}, make([]byte, 16), r[1]) }, "first"},
		{"zeros", func(r [][]byte) []byte { return join(r[0], make([]byte, 4096)) }, "first"},
		{"ones", func(r [][]byte) []byte { return join(r[0], bytes.Repeat([]byte{255}, 70<<10)) }, "first"},
		{"nothing at all", func([][]byte) []byte { return nil }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y, feed, records := capture(t, "first", "second")
			got, err := readAll(t, y, feed, tt.wire(records))
			checkRefused(t, got, err, tt.want)
		})
	}
}

func checkRefused(t *testing.T, got []byte, err error, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("delivered %q, want %q", got, want)
	}
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want an error that is no end of data", err)
	}
}

// Every byte of a record flipped, and the record cut at every length.
func TestEveryByteOfARecord(t *testing.T) {
	_, _, probe := capture(t, "some data")
	for i := range probe[0] {
		y, feed, records := capture(t, "some data")
		records[0][i] ^= 0x40
		got, err := readAll(t, y, feed, bytes.Join(records, nil))
		checkRefused(t, got, err, "")
	}
	for i := range probe[0] {
		y, feed, records := capture(t, "some data")
		got, err := readAll(t, y, feed, records[0][:i])
		checkRefused(t, got, err, "")
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v, want io.ErrUnexpectedEOF", i, err)
		}
	}
}
