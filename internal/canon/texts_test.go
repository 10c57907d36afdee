package canon

import (
	"encoding/hex"
	"strings"
	"testing"
)

type texts struct {
	A string `cbor:"1,keyasint,omitempty"`
	B string `cbor:"2,keyasint,omitempty"`
}

func TestTexts(t *testing.T) {
	for _, want := range []texts{
		{A: "x"},
		{A: "orders-db", B: "192.0.2.1:50000"},
		{A: strings.Repeat("a", 23), B: strings.Repeat("b", 24)},
		{A: strings.Repeat("a", 255), B: strings.Repeat("b", 256)},
		{A: "ü€𝄞", B: strings.Repeat("b", 65535)},
	} {
		b, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got texts
		if !Texts(b, &got.A, &got.B) || got != want {
			t.Errorf("Texts(%x) = %+v, want %+v", b, got, want)
		}
		for i := range b {
			if Texts(b[:i], &got.A, &got.B) {
				t.Errorf("Texts took the first %d bytes of %x", i, b)
			}
		}
		if Texts(append(b, 0), &got.A, &got.B) {
			t.Errorf("Texts took %x with a byte behind it", b)
		}
	}
	for _, tt := range []struct{ name, in string }{
		{"no entries", "a0"},
		{"another key", "a1026178"},
		{"keys out of order", "a2026178016178"},
		{"the same key twice", "a2016178016178"},
		{"key longer than needed", "a118016178"},
		{"more keys than places", "a3016178026178036178"},
		{"bytes for text", "a1014178"},
		{"length longer than needed", "a101780178"},
		{"two-byte length longer than needed", "a10179001878"},
		{"no UTF-8", "a10161ff"},
		{"list", "81016178"},
	} {
		in, err := hex.DecodeString(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		var got texts
		if Texts(in, &got.A, &got.B) {
			t.Errorf("%s: Texts(%s) = %+v, want it refused", tt.name, tt.in, got)
		}
	}
}

// FuzzTexts holds Texts against Unmarshal.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"a1016178", "a2016178026179", "a20161780260", "a10161ff", "a1017818" + "616161616161616161616161616161616161616161616161"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want texts
		ok := Texts(data, &got.A, &got.B)
		err := Unmarshal(data, &want)
		switch {
		case ok && err != nil:
			t.Errorf("Texts took %x, of which Unmarshal says: %v", data, err)
		case ok && got != want:
			t.Errorf("Texts(%x) = %+v, Unmarshal %+v", data, got, want)
		case !ok && err == nil && data[0] <= 0xa2 && want.A != "" && (data[0] == 0xa1 || want.B != ""):
			t.Errorf("Texts refused %x, which is %+v", data, want)
		}
	})
}
