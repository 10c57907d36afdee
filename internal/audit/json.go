package audit

import (
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// An object is a JSON object (RFC 8259) in the making.
type object struct{ b []byte }

func (o *object) key(key string) {
	if n := len(o.b); n > 0 && o.b[n-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(strconv.AppendQuote(o.b, key), ':') // keys are plain words
}

// text appends a member whose value has at most the given number of bytes
// between its quotes.
func (o *object) text(key, value string, most int) {
	o.key(key)
	o.b = appendText(o.b, value, most)
}

// optional is text, unless there is none.
func (o *object) optional(key, value string, most int) {
	if value != "" {
		o.text(key, value, most)
	}
}

func (o *object) list(key string, values []string, most int) {
	o.key(key)
	o.b = append(o.b, '[')
	for i, v := range values {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendText(o.b, v, most)
	}
	o.b = append(o.b, ']')
}

// listWithin is list for values that take most bytes together, with their quotes
// and commas. An ellipsis ends the value that is cut, or stands for those that have
// no room.
func (o *object) listWithin(key string, values []string, most int) {
	const more = len(`,"` + ellipsis + `"`)
	o.key(key)
	o.b = append(o.b, '[')
	end := len(o.b) + most
	for i, v := range values {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		room := end - len(o.b) - len(`""`)
		if i < len(values)-1 {
			room -= more
		}
		if room < len(ellipsis) {
			o.b = appendText(o.b, ellipsis, len(ellipsis))
			break
		}
		o.b = appendText(o.b, v, room)
	}
	o.b = append(o.b, ']')
}

func (o *object) number(key string, n uint64) {
	o.key(key)
	o.b = strconv.AppendUint(o.b, n, 10)
}

// seconds appends a duration as seconds, to the microsecond.
func (o *object) seconds(key string, d time.Duration) {
	o.key(key)
	o.b = strconv.AppendFloat(o.b, max(0, d).Seconds(), 'f', 6, 64)
}

const ellipsis = "…"

// appendText appends s as a JSON string of at most most bytes between its
// quotes; one that is longer is cut and ends in an ellipsis. Whatever is not
// printable is escaped, so that a line can be shown on a terminal: control
// characters, what changes the direction of writing, other line ends. What is
// not UTF-8 becomes U+FFFD.
func appendText(dst []byte, s string, most int) []byte {
	dst = append(dst, '"')
	begin, room := len(dst), len(dst) // room: the longest that leaves space for the ellipsis
	for _, r := range s {             // yields U+FFFD for what is not UTF-8
		dst = appendRune(dst, r)
		if len(dst)-begin > most {
			return append(append(dst[:room], ellipsis...), '"')
		}
		if len(dst)-begin <= most-len(ellipsis) {
			room = len(dst)
		}
	}
	return append(dst, '"')
}

func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case strconv.IsPrint(r):
		return utf8.AppendRune(dst, r)
	case r > 0xFFFF:
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(dst, high), low)
	}
	return appendEscape(dst, r)
}

func appendEscape(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
