package code

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxReason is how long the reason beside a code may be on the wire, in bytes.
const MaxReason = 1 << 10

// CutReason shortens a reason to [MaxReason], at a rune's border.
func CutReason(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	end := MaxReason
	for end > MaxReason-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Printable replaces with ? what a peer could have put into a text to harm a
// log or a terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
