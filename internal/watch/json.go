package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of an answer, beside its bytes: what is read into memory is a hundred times as
// long as the shortest text that says it, and what is printed is as wide as it is deep.
// A relay with 100,000 registrations has half of that.
const (
	maxObjects = 1 << 17
	maxValues  = 1 << 21
	maxDepth   = 32
)

// errNoJSON says that an answer is none.
var errNoJSON = errors.New("it is no JSON")

// checkJSON says why an answer is not read: it is no JSON, or has more in it than any
// process answers. It holds nothing.
func checkJSON(b []byte) error {
	if !json.Valid(b) {
		return errNoJSON
	}
	objects, values, depth, inString := 0, 1, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++ // whatever it is, it does not end the string
		case c == '"':
			inString = !inString
		case inString:
		case c == ',':
			values++
		case c == '{' || c == '[':
			if depth++; c == '{' {
				objects++
			}
			values++
		case c == '}' || c == ']':
			depth--
		}
		if objects > maxObjects || values > maxValues || depth > maxDepth {
			return fmt.Errorf("it has more in it than %d objects or %d values, or is deeper than %d", maxObjects, maxValues, maxDepth)
		}
	}
	return nil
}

// Indent returns JSON in lines, with one line's end behind it. In its strings all is
// escaped that could do something to a terminal or look like another line, and what is
// not UTF-8 becomes U+FFFD, so that it can be shown and is JSON (RFC 8259, section 8.1).
// What is no JSON is returned as a string of it.
func Indent(raw []byte) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		b.Reset()
		text, _ := json.Marshal(string(raw)) // of a string it never fails
		b.Write(text)
	}
	b.WriteByte('\n')
	return escape(b.Bytes())
}

// escape escapes what is not printable in the strings of JSON, the only place where that
// can be.
func escape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case r < utf8.RuneSelf && r != 0x7F, unicode.IsPrint(r): // no string has a control character as it is
			out = append(out, b[:n]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}
