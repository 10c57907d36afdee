package webhook

import (
	"strings"
	"unicode/utf8"
)

// Bounds of texts that come from reviews, in bytes: what a log or a person is shown of
// them.
const (
	maxName    = 253     // of an object's or namespace's name, as Kubernetes has it (RFC 1123)
	maxMessage = 1 << 10 // of why something is refused
	maxWarning = 256     // API servers cut longer ones off
)

// cut returns a text without what is beyond so many bytes, and a mark in its place; runes
// stay whole.
func cut(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	end := most - len(mark)
	for !utf8.RuneStart(text[end]) && end > most-len(mark)-utf8.UTFMax {
		end--
	}
	return text[:end] + mark
}

// oneLine returns an error's text as one line of maxMessage bytes at most.
func oneLine(err error) string { return cut(strings.ReplaceAll(err.Error(), "\n", "; "), maxMessage) }
