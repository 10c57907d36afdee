package watch

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestColumns(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "abc": 3, "日本": 4, "é": 1, Bold.Paint("ab"): 2, "\x1b[31": 4, "…": 1, "ｆ": 2, "\x1b[m": 0,
	} {
		if got := Columns(text); got != want {
			t.Errorf("%q takes %d columns, want %d", text, got, want)
		}
	}
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdef", 4, "abc…"},
		{"日本語", 4, "日…"},
		{"abc", 0, ""},
		{Bold.Paint("abcdef"), 3, "\x1b[1mab…\x1b[m"},
	} {
		if got := Clip(c.text, c.most); got != c.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", c.text, c.most, got, c.want)
		}
	}
}

// TestCutTexts: whatever is cut fits, and what is broken into lines is all there.
func TestCutTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.RuneFrom([]rune("ab 日é…\u0301"))).Draw(t, "text")
		if rapid.Bool().Draw(t, "painted") {
			text = Good.Paint(text) + text
		}
		most := rapid.IntRange(2, 20).Draw(t, "most")
		if got := Columns(Clip(text, most)); got > most {
			t.Errorf("Clip(%q, %d) takes %d", text, most, got)
		}
		if got := Columns(Pad(text, most, false)); got != most {
			t.Errorf("Pad(%q, %d) takes %d", text, most, got)
		}
		lines := hardWrap(text, most)
		for _, l := range lines {
			if Columns(l) > most {
				t.Errorf("a line of %q takes %d of %d", text, Columns(l), most)
			}
		}
		if strings.Join(lines, "") != text {
			t.Errorf("%q is broken into %q", text, lines)
		}
		if got := Strip(text); Columns(got) != Columns(text) || strings.Contains(got, "\x1b") {
			t.Errorf("Strip(%q) = %q", text, got)
		}
	})
}
