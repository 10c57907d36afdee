package canon

import (
	"bytes"
	"encoding/hex"
	"testing"
)

type pair struct {
	A uint64 `cbor:"1,keyasint,omitempty"`
	B []byte `cbor:"2,keyasint,omitempty"`
}

func TestUnmarshalRefusesEveryOtherEncoding(t *testing.T) {
	tests := []struct{ name, in string }{
		{"integer longer than needed", "a1011801"},
		{"keys out of order", "a202410001" + "01"},
		{"duplicate key", "a201010102"},
		{"indefinite length map", "bf0101ff"},
		{"indefinite length string", "a1025f4100ff"},
		{"tag", "a101c101"},
		{"trailing byte", "a1010100"},
		{"cut", "a10242"},
		{"empty", ""},
		{"float for integer", "a101f93c00"},
		{"huge array length", "a1029affffffff"},
		{"deep nesting", "818181818181818181818181818181818100"},
		{"key of another kind", "a1616101" + "00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, err := hex.DecodeString(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			var v pair
			if err := Unmarshal(in, &v); err == nil {
				t.Errorf("Unmarshal(%s) = %+v, want an error", tt.in, v)
			}
			if err := UnmarshalExact(in, &v); err == nil {
				t.Errorf("UnmarshalExact(%s) = %+v, want an error", tt.in, v)
			}
		})
	}
}

func TestUnknownKeys(t *testing.T) {
	in := []byte{0xa2, 0x01, 0x07, 0x18, 0x63, 0x00} // {1: 7, 99: 0}
	var v pair
	if err := Unmarshal(in, &v); err != nil || v.A != 7 {
		t.Errorf("Unmarshal = %+v, %v; want A=7 and the unknown key passed over", v, err)
	}
	if err := UnmarshalExact(in, &v); err == nil {
		t.Error("UnmarshalExact accepted a key that the struct does not know")
	}
}

func FuzzUnmarshalExact(f *testing.F) {
	for _, p := range []pair{{}, {A: 1}, {A: 1 << 40, B: []byte("x")}, {B: bytes.Repeat([]byte{1}, 300)}} {
		b, err := Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v, same pair
		if UnmarshalExact(in, &v) != nil {
			return
		}
		if err := Unmarshal(in, &same); err != nil {
			t.Errorf("accepted %x, of which Unmarshal says: %v", in, err)
		}
		out, err := Marshal(v)
		if err != nil || !bytes.Equal(in, out) {
			t.Errorf("accepted %x but prints %x (%v)", in, out, err)
		}
	})
}
