package code

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// A reason is at most MaxReason bytes, the beginning of what was said, cut
// between runes, and no shorter than that asks for.
func TestCutReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringN(0, 2*MaxReason, -1),
			rapid.Custom(func(t *rapid.T) string { // a border anywhere in a rune
				r := rapid.SampledFrom([]string{"é", "€", "😀"}).Draw(t, "rune")
				return strings.Repeat("a", rapid.IntRange(0, 4).Draw(t, "offset")) + strings.Repeat(r, MaxReason/2)
			}),
			rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 2*MaxReason).Draw(t, "bytes")) }),
		).Draw(t, "text")
		got := CutReason(text)
		switch {
		case len(got) > MaxReason:
			t.Fatalf("%d bytes, want at most %d", len(got), MaxReason)
		case !strings.HasPrefix(text, got):
			t.Fatalf("%q is not how %q begins", got, text)
		case len(text) <= MaxReason && got != text:
			t.Fatalf("a text of %d bytes was cut to %d", len(text), len(got))
		case len(text) > MaxReason && len(got) < MaxReason-utf8.UTFMax:
			t.Fatalf("%d bytes are left of %d, want all that fits", len(got), len(text))
		case utf8.ValidString(text) && !utf8.ValidString(got):
			t.Fatalf("valid text was cut inside a rune: …%q", got[len(got)-4:])
		case utf8.ValidString(text) && len(text) > len(got):
			if _, n := utf8.DecodeRuneInString(text[len(got):]); len(got)+n <= MaxReason {
				t.Fatalf("one more rune would fit: %d bytes and %d", len(got), n)
			}
		}
		if again := CutReason(got); again != got {
			t.Fatalf("cut twice: %q, once: %q", again, got)
		}
	})
}

// What a peer says can be printed: valid, without anything that moves a cursor,
// ends a line, hides or turns text, and no longer than it came.
func TestPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(),
			rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) }),
			rapid.StringOf(rapid.RuneFrom(nil, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.L)),
		).Draw(t, "text")
		got := Printable(text)
		if !utf8.ValidString(got) || len(got) > len(text) {
			t.Fatalf("%q: valid %v, %d bytes of %d", got, utf8.ValidString(got), len(got), len(text))
		}
		want, left := []rune(text), []rune(got)
		if len(left) != len(want) {
			t.Fatalf("%d runes became %d", len(want), len(left))
		}
		for i, r := range left {
			if !unicode.IsPrint(r) || r == utf8.RuneError {
				t.Fatalf("%q holds %U", got, r)
			}
			if kept := unicode.IsPrint(want[i]) && want[i] != utf8.RuneError; kept && r != want[i] || !kept && r != '?' {
				t.Fatalf("%U became %U", want[i], r)
			}
		}
		if again := Printable(got); again != got {
			t.Fatalf("twice: %q, once: %q", again, got)
		}
	})
}

func TestPrintableExamples(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		"relay is draining: wait a bit…": "relay is draining: wait a bit…",
		"größer als 10 €":                "größer als 10 €",
		"a\nERROR forged":                "a?ERROR forged",
		"\x1b[2J\x1b]0;title\a":          "?[2J?]0;title?",
		"a\tb\r\x00\x7f":                 "a?b???",
		"\u009b31m":                      "?31m", // an escape sequence in one rune
		"\u202etxt.exe":                  "?txt.exe",
		"a\u200bb\ufeff":                 "a?b?",
		"line\u2028line":                 "line?line",
		"cut \xe2\x82":                   "cut ??",
		"\xff\xfe":                       "??",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
