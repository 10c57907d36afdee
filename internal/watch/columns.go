package watch

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Columns returns how many columns of a terminal text takes, which may be painted
// ([Style.Paint]).
func Columns(text string) (n int) {
	for len(text) > 0 {
		size, w := piece(text)
		n += w
		text = text[size:]
	}
	return n
}

// piece returns the length of what is first in text, and how many columns it takes: a
// rune, or the change of a style, which takes none.
func piece(text string) (size, columns int) {
	if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
		if i := strings.IndexByte(rest, 'm'); i >= 0 && strings.Trim(rest[:i], "0123456789;") == "" {
			return len("\x1b[") + i + 1, 0
		}
	}
	r, size := utf8.DecodeRuneInString(text)
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return size, 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return size, 2
	}
	return size, 1
}

// truncate cuts text off at most columns, tail included if it does. Styles that change
// behind that place still do.
func truncate(text string, most int, tail string) string {
	if Columns(text) <= most {
		return text
	}
	left := most - Columns(tail)
	if left < 0 {
		left, tail = most, ""
	}
	var b strings.Builder
	for cut := false; len(text) > 0; {
		size, w := piece(text)
		if !cut && w > left {
			cut = true
			b.WriteString(tail)
		}
		if !cut || w == 0 && text[0] == '\x1b' {
			b.WriteString(text[:size])
			left -= w
		}
		text = text[size:]
	}
	return b.String()
}

// hardWrap breaks text wherever a line is full.
func hardWrap(text string, most int) (lines []string) {
	var line strings.Builder
	for n := 0; len(text) > 0; {
		size, w := piece(text)
		if n > 0 && n+w > most {
			lines = append(lines, line.String())
			line.Reset()
			n = 0
		}
		line.WriteString(text[:size])
		n += w
		text = text[size:]
	}
	return append(lines, line.String())
}

// Strip returns text without styles.
func Strip(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		size, w := piece(text)
		if w > 0 || text[0] != '\x1b' {
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

// PlainWriter returns a writer to w that leaves styles out. Each write is whole.
func PlainWriter(w io.Writer) io.Writer { return plainWriter{w} }

type plainWriter struct{ w io.Writer }

// Write implements [io.Writer].
func (p plainWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.w, Strip(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
