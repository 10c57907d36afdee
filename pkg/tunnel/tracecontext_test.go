package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/internal/canon"
)

// aTraceContext returns a context whose bytes all differ.
func aTraceContext(isSampled bool) TraceContext {
	var trace [16]byte
	var parent [8]byte
	for i := range trace {
		trace[i] = byte(i + 1)
	}
	for i := range parent {
		parent[i] = byte(i + 0x81)
	}
	return NewTraceContext(trace, parent, isSampled)
}

// TestTraceContextBytes: OPEN has a trace context as docs/protocol.md says.
func TestTraceContextBytes(t *testing.T) {
	for _, isSampled := range []bool{false, true} {
		o := Open{Service: "db", ClientAddress: "192.0.2.1:5", Trace: aTraceContext(isSampled)}
		got, err := o.frame()
		if err != nil {
			t.Fatal(err)
		}
		want := append([]byte{1, 0, 0, 46, 0xa3, 1, 0x62, 'd', 'b', 2, 0x6b}, "192.0.2.1:5"...)
		want = append(want, 3, 0x58, 25, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0)
		if isSampled {
			want[len(want)-1] = 1
		}
		if !bytes.Equal(got, want) {
			t.Errorf("sampled %v: got % x, want % x", isSampled, got, want)
		}
		if back, err := parseOpen(got[frameHeader:]); err != nil || back != o {
			t.Errorf("sampled %v: got %+v, %v, want %+v", isSampled, back, err, o)
		}
	}
}

// TestTraceContextIsLeftOut: without one an OPEN is what it was before there were any.
func TestTraceContextIsLeftOut(t *testing.T) {
	got, err := Open{Service: "db"}.frame()
	if want := []byte{1, 0, 0, 5, 0xa1, 1, 0x62, 'd', 'b'}; err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x, %v, want % x", got, err, want)
	}
}

// TestTraceContextPassedOver: who knows the keys of before only, reads the rest.
func TestTraceContextPassedOver(t *testing.T) {
	frame, err := Open{Service: "db", ClientAddress: "192.0.2.1:5", Trace: aTraceContext(true)}.frame()
	if err != nil {
		t.Fatal(err)
	}
	var before struct {
		Service       string `cbor:"1,keyasint"`
		ClientAddress string `cbor:"2,keyasint,omitempty"`
	}
	if err := canon.Unmarshal(frame[frameHeader:], &before); err != nil || before.Service != "db" || before.ClientAddress != "192.0.2.1:5" {
		t.Errorf("got %+v, %v", before, err)
	}
}

// hostileContexts are values of OPEN's key 3 that name no span.
func hostileContexts() map[string]any {
	good := aTraceContext(true)
	noTrace, noParent := good, good
	clear(noTrace[:16])
	clear(noParent[16:24])
	list := make([]int, TraceContextLen)
	for i := range list {
		list[i] = i + 1
	}
	return map[string]any{
		"empty": []byte{}, "of 24": good[:24], "of 26": append(good[:], 0), "of 3900": make([]byte, 3900),
		"all zeros": make([]byte, TraceContextLen), "no trace id": noTrace[:], "no parent id": noParent[:],
		"a text": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a number": 7, "a list": []int{1, 2}, "a list of 25": list, "a map": map[int]int{1: 2}, "true": true,
	}
}

func hostileOpen(t testing.TB, context any) []byte {
	t.Helper()
	body, err := canon.Marshal(map[int]any{1: "db", 3: context})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestTraceContextRefused(t *testing.T) {
	for name, context := range hostileContexts() {
		if o, err := parseOpen(hostileOpen(t, context)); !errors.Is(err, errProtocol) {
			t.Errorf("%s: got %+v, %v, want a breach of protocol", name, o, err)
		}
	}
}

// TestTraceContextEndsSession: it is a breach as any other of an OPEN is.
func TestTraceContextEndsSession(t *testing.T) {
	for name, context := range hostileContexts() {
		t.Run(name, func(t *testing.T) {
			s, c, _ := attack(t, joined(syn(1), syn(3), data(3, appendFrame(nil, frameOpen, hostileOpen(t, context)...))))
			wantProtocol(t, s, c)
		})
	}
}

// TestTraceContextIsChecked: nobody sends what the peer would have to refuse.
func TestTraceContextIsChecked(t *testing.T) {
	good := aTraceContext(true)
	noTrace, noParent := good, good
	clear(noTrace[:16])
	clear(noParent[16:24])
	for name, c := range map[string]TraceContext{"no trace id": noTrace, "no parent id": noParent, "flags alone": {24: 1}} {
		if _, err := (Open{Service: "db", Trace: c}).frame(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestTraceContextRoundTrip: what is sent arrives; flags that nobody knows do not.
func TestTraceContextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), TraceContextLen, TraceContextLen).Draw(t, "context")
		var c TraceContext
		err := c.UnmarshalCBOR(append([]byte{0x58, TraceContextLen}, raw...))
		named := !bytes.Equal(raw[:16], make([]byte, 16)) && !bytes.Equal(raw[16:24], make([]byte, 8))
		if (err == nil) != named {
			t.Fatalf("got %v for % x", err, raw)
		}
		if !named {
			return
		}
		if c != NewTraceContext([16]byte(raw[:16]), [8]byte(raw[16:24]), raw[24]&1 == 1) || fmt.Sprintf("%x", c.TraceID()) != fmt.Sprintf("%x", raw[:16]) || c.Sampled() != (raw[24]&1 == 1) {
			t.Fatalf("got % x for % x", c, raw)
		}
		frame, err := Open{Service: "db", Trace: c}.frame()
		if err != nil {
			t.Fatal(err)
		}
		if o, err := parseOpen(frame[frameHeader:]); err != nil || o.Trace != c {
			t.Fatalf("got %+v, %v, want % x", o, err, c)
		}
	})
}
