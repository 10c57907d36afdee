package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

func requests() []request {
	instance := channel.Instance{1, 2, 3}
	return []request{
		{Kind: kindRegister},
		{Kind: kindPark},
		connectRequest(identity.Identifier{31: 7}, nil),
		connectRequest(identity.Identifier{31: 7}, &instance),
		extendRequest("relay-b:4000", [32]byte{1}, 0),
		extendRequest("[2001:db8::1]:65535", [32]byte{}, 31),
		findRequest("orders-db"),
		findRequest(strings.Repeat("é", maxService/2)),
	}
}

func TestRequestRoundTrip(t *testing.T) {
	for _, r := range requests() {
		b, err := r.encode()
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if got, err := parseRequest(b); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("got %+v, %v; want %+v", got, err, r)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	order := make([]byte, 32)
	for _, tc := range []struct {
		r    request
		want string
	}{
		{request{}, "unknown kind 0"},
		{request{Kind: 6}, "unknown kind 6"},
		{request{Kind: kindRegister, Outlet: order}, "fields of connect"},
		{request{Kind: kindPark, Address: "a:1"}, "fields of extend"},
		{request{Kind: kindPark, Index: 1}, "fields of extend"},
		{request{Kind: kindConnect}, "identifier of 0 bytes"},
		{request{Kind: kindConnect, Outlet: order[:31]}, "identifier of 31 bytes"},
		{request{Kind: kindConnect, Outlet: order, Instance: order}, "instance of 32 bytes"},
		{request{Kind: kindConnect, Outlet: order, Order: order}, "fields of extend"},
		{request{Kind: kindExtend, Address: "a:1", Order: order[1:]}, "order of 31 bytes"},
		{request{Kind: kindExtend, Address: "a:1", Order: order, Outlet: order}, "fields of connect"},
		{request{Kind: kindExtend, Address: "", Order: order}, "host:port"},
		{request{Kind: kindExtend, Address: "a", Order: order}, "missing port"},
		{request{Kind: kindExtend, Address: "A:1", Order: order}, "canonical"},
		{request{Kind: kindExtend, Address: "[::0]:1", Order: order}, "canonical"},
		{request{Kind: kindExtend, Address: "a:0", Order: order}, "port"},
		{request{Kind: kindExtend, Address: "a/b:1", Order: order}, "alone"},
		{request{Kind: kindFind}, "name of 0 bytes"},
		{request{Kind: kindFind, Service: strings.Repeat("a", maxService+1)}, "name of 254 bytes"},
		{request{Kind: kindFind, Service: "a\nb"}, "unprintable"},
		{request{Kind: kindFind, Service: "a\u202eb"}, "unprintable"},
		{request{Kind: kindFind, Service: "a", Outlet: order}, "fields of connect"},
		{request{Kind: kindFind, Service: "a", Address: "a:1"}, "fields of extend"},
		{request{Kind: kindFind, Service: "a", Order: order}, "fields of extend"},
		{request{Kind: kindRegister, Service: "a"}, "fields of find"},
		{request{Kind: kindConnect, Outlet: order, Service: "a"}, "fields of find"},
		{request{Kind: kindExtend, Address: "a:1", Order: order, Service: "a"}, "fields of find"},
		{request{Kind: kindExtend, Address: strings.Repeat("a", 2000) + ":1", Order: order}, "bytes, at most 1024"},
	} {
		b, err := canon.Marshal(tc.r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseRequest(b); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %+v, %v; want %q", tc.r, got, err, tc.want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range requests() {
		b, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa1, 0x01, 0x06})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if r.Kind == kindExtend {
			splitAddress(r.Address) // panics for what was not checked
		}
		_ = r.target()
		again, err := r.encode()
		if err != nil {
			t.Fatalf("%x is %+v, which does not encode: %v", b, r, err)
		}
		if back, err := parseRequest(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%x is %+v, which reads back as %+v, %v", b, r, back, err)
		}
	})
}

func messages() []message {
	return []message{
		{Kind: msgOK},
		{Kind: msgOK, Lease: 30_000},
		{Kind: msgOK, Ping: 5_000},
		{Kind: msgOK, Address: "[2001:db8::1]:4000"},
		{Kind: msgOK, Address: "[fe80::1%br-0.100_a]:4000"},
		{Kind: msgRenew},
		{Kind: msgRenewed},
		{Kind: msgMore, Count: 2},
		{Kind: msgDraining},
		{Kind: msgGo},
		{Kind: msgGoing},
		{Kind: msgListed, Replicas: listedOf(1)},
		{Kind: msgListed, Replicas: listedOf(maxListed)},
		{Kind: msgEnd},
		{Kind: msgEnd, LeftOut: true},
	}
}

// listedOf returns n outlets, of which one in two drains.
func listedOf(n int) (all []listed) {
	for i := range n {
		outlet, instance := identity.Identifier{0: 1, 31: byte(i)}, channel.Instance{0: 2, 15: byte(i)}
		all = append(all, listed{outlet[:], instance[:], i%2 == 0})
	}
	return all
}

// A message with as many outlets as there may be is as long as a message may be.
func TestLongestList(t *testing.T) {
	all := listedOf(maxListed)
	for i := range all {
		all[i].Draining = true
	}
	var b bytes.Buffer
	if err := writeMessage(&b, message{Kind: msgListed, Replicas: all}); err != nil {
		t.Fatal(err)
	}
	if got, err := readMessage(&b); err != nil || len(got.Replicas) != maxListed {
		t.Errorf("got %d outlets, %v; want %d", len(got.Replicas), err, maxListed)
	}
}

// Messages keep their borders on a stream, whatever pieces it comes in, and
// nothing beyond one is read.
func TestMessageRoundTrip(t *testing.T) {
	var b bytes.Buffer
	for _, m := range messages() {
		if err := writeMessage(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("raw")
	r := io.MultiReader(oneByte{&b})
	for _, want := range messages() {
		if got, err := readMessage(r); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if b.String() != "raw" {
		t.Errorf("%q is left, want raw", b.String())
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

func TestMessageRefused(t *testing.T) {
	frame := func(body ...byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
	}
	lists := func(kind messageKind, all []listed) []byte {
		b, err := canon.Marshal(message{Kind: kind, Replicas: all})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	reached := func(address string) []byte {
		b, err := canon.Marshal(message{Kind: msgOK, Address: address})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a length", []byte{0}, io.ErrUnexpectedEOF},
		{"length alone", []byte{0, 3}, io.ErrUnexpectedEOF},
		{"cut", frame(0xa1, 0x01, 0x01)[:4], io.ErrUnexpectedEOF},
		{"empty", frame(), errMessage},
		{"long", []byte{0x02, 0x01, 0xa1}, errMessage}, // and nothing waits for 513 bytes
		{"longest", []byte{0xff, 0xff}, errMessage},
		{"no CBOR", frame(0xff), errMessage},
		{"no map", frame(0x01), errMessage},
		{"kind 0", frame(0xa1, 0x01, 0x00), errMessage},
		{"kind 10", frame(0xa1, 0x01, 0x0a), errMessage},
		{"lists nothing", frame(0xa1, 0x01, 0x08), errMessage},
		{"lists none", frame(0xa2, 0x01, 0x08, 0x06, 0x80), errMessage},
		{"lists something empty", frame(0xa2, 0x01, 0x08, 0x06, 0x81, 0xa0), errMessage},
		{"lists too many", frame(lists(msgListed, listedOf(maxListed+1))...), errMessage},
		{"lists in an end", frame(lists(msgEnd, listedOf(1))...), errMessage},
		{"lists in an ok", frame(lists(msgOK, listedOf(1))...), errMessage},
		{"short identifier", frame(lists(msgListed, []listed{{make([]byte, 31), make([]byte, 16), false}})...), errMessage},
		{"long identifier", frame(lists(msgListed, []listed{{make([]byte, 33), make([]byte, 16), false}})...), errMessage},
		{"short instance", frame(lists(msgListed, []listed{{make([]byte, 32), make([]byte, 15), false}})...), errMessage},
		{"no instance", frame(lists(msgListed, []listed{{Outlet: make([]byte, 32)}})...), errMessage},
		{"no kind", frame(0xa0), errMessage},
		{"long form of 1", frame(0xa1, 0x01, 0x18, 0x01), errMessage},
		{"two values", frame(0xa1, 0x01, 0x01, 0xa1, 0x01, 0x01), errMessage},
		{"address is a name", frame(reached("relay-b:4000")...), errMessage},
		{"address whose zone is for a terminal", frame(reached("[fe80::1%\x1b]0;gone\a]:4000")...), errMessage},
		{"address whose zone is another line", frame(reached("[fe80::1%eth0\nroute 2 of 2]:4000")...), errMessage},
		{"address whose zone turns text around", frame(reached("[fe80::1%\u202e0hte]:4000")...), errMessage},
		{"address whose zone is C1", frame(reached("[fe80::1%\u009b2J]:4000")...), errMessage},
		{"address whose zone is long", frame(reached("[fe80::1%" + strings.Repeat("e", maxZone+1) + "]:4000")...), errMessage},
	} {
		if got, err := readMessage(bytes.NewReader(tc.in)); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %+v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, m := range messages() {
		var b bytes.Buffer
		if err := writeMessage(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, err := readMessage(r)
		if err != nil {
			return
		}
		if read := len(b) - r.Len(); read > 2+maxMessage {
			t.Fatalf("%d bytes read", read)
		}
		var again bytes.Buffer
		if err := writeMessage(&again, m); err != nil {
			t.Fatal(err)
		}
		if back, err := readMessage(&again); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%x is %+v, which reads back as %+v, %v", b, m, back, err)
		}
	})
}

// What a peer says about times is held between bounds.
func TestMillis(t *testing.T) {
	for _, tc := range []struct {
		ms   uint32
		want time.Duration
	}{{0, time.Second}, {1, time.Second}, {5000, 5 * time.Second}, {1<<32 - 1, time.Minute}} {
		if got := fromMillis(tc.ms, time.Second, time.Minute); got != tc.want {
			t.Errorf("%d: got %v, want %v", tc.ms, got, tc.want)
		}
	}
	if got := millis(30 * time.Second); got != 30_000 {
		t.Errorf("got %d, want 30000", got)
	}
	if got := millis(time.Nanosecond); got != 1 {
		t.Errorf("got %d, want 1: 0 would be no time", got)
	}
}
