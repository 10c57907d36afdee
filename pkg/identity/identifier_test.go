package identity

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseIdentifierRefuses(t *testing.T) {
	good := testIdentity(t, 1).Identifier().String()
	if _, err := ParseIdentifier(good); err != nil {
		t.Fatalf("ParseIdentifier(%q): %v", good, err)
	}
	body := good[:identifierLen-1]
	tests := []struct{ name, in, want string }{
		{"empty", "", "identifier is empty"},
		{"upper case", strings.ToUpper(good), "upper-case"},
		{"one upper-case character", "A" + good[1:], `upper-case 'A' at position 1: write it in lower case`},
		{"short", good[:51], "51 characters, want 52"},
		{"long", good + "a", "53 characters, want 52"},
		{"far too long", strings.Repeat("a", 1<<20), "1048576 characters, want 52"},
		{"digit outside of the alphabet", "1" + good[1:], `'1' at position 1`},
		{"padding", body + "=", `'=' at position 52`},
		{"newline behind", good + "\n", `'\n' at position 53`},
		{"newline inside", good[:9] + "\n" + good[9:], `'\n' at position 10`},
		{"blank in front", " " + good, `' ' at position 1`},
		{"not ASCII", "é" + good[2:], `'é' at position 1`},
		{"not UTF-8", "\xff" + good[1:], "at position 1"},
		{"NUL", good[:51] + "\x00", `'\x00' at position 52`},
		{"trailing bit 0", body + "b", `ends in 'b'`},
		{"trailing bit 1", body + "c", `ends in 'c'`},
		{"trailing bit 2", body + "e", `ends in 'e'`},
		{"trailing bit 3", body + "i", `ends in 'i'`},
		{"trailing bits all", body + "7", `ends in '7'`},
		{"zero", strings.Repeat("a", 52), "all zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := ParseIdentifier(tt.in)
			wantError(t, err, "identifier", tt.want)
			if !id.IsZero() {
				t.Errorf("ParseIdentifier(%q) = %v with an error, want zero", tt.in, id)
			}
		})
	}
}

func TestParseIdentifierErrorHoldsNoSecret(t *testing.T) {
	const pasted = "-----BEGIN CULVERT PRIVATE KEY-----"
	_, err := ParseIdentifier(pasted)
	wantError(t, err, `'-' at position 1`)
	if strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("error %q repeats its input", err)
	}
}

func TestIdentifierRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want Identifier
		copy(want[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "bytes"))
		if want.IsZero() {
			t.Skip("the zero identifier does not parse")
		}
		s := want.String()
		got, err := ParseIdentifier(s)
		if err != nil || got != want {
			t.Fatalf("ParseIdentifier(%q) = %v, %v; want the same", s, got, err)
		}
	})
}

func TestIdentifierAsText(t *testing.T) {
	want := testIdentity(t, 1).Identifier()
	b, err := json.Marshal(map[Identifier]Identifier{want: want})
	if err != nil {
		t.Fatal(err)
	}
	var got map[Identifier]Identifier
	if err := json.Unmarshal(b, &got); err != nil || got[want] != want {
		t.Errorf("json.Unmarshal(%s) = %v, %v; want %v", b, got, err, want)
	}
	kept := want
	if err := kept.UnmarshalText([]byte("x")); err == nil || kept != want {
		t.Errorf("UnmarshalText = %v and changed to %v; want an error and no change", err, kept)
	}
}

func FuzzParseIdentifier(f *testing.F) {
	good := testIdentity(f, 1).Identifier().String()
	for _, s := range []string{good, good[:51] + "b", strings.ToUpper(good), strings.Repeat("a", 52), ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdentifier(s)
		if err == nil && id.String() != s {
			t.Errorf("accepted %q but prints %q", s, id)
		}
	})
}
