package canon

import (
	"encoding/binary"
	"unicode/utf8"
)

// Texts reads the commonest of small messages without what [Unmarshal] costs,
// which takes any: a map of the keys 1, 2 and so on to texts of up to 65,535
// bytes, at most as many as there are places in into. It reports whether data is
// that, in the deterministic encoding and to its last byte. If not, it may still
// be a message that Unmarshal takes, and into is left half written.
func Texts(data []byte, into ...*string) bool {
	const mapOf = 5 << 5
	if len(data) == 0 || data[0] <= mapOf || int(data[0]) > mapOf+min(len(into), 23) {
		return false
	}
	n, data := int(data[0]-mapOf), data[1:]
	for i, text := range into[:n] {
		if len(data) == 0 || int(data[0]) != i+1 {
			return false
		}
		var ok bool
		if *text, data, ok = cutText(data[1:]); !ok {
			return false
		}
	}
	return len(data) == 0
}

// cutText cuts a text off the front of data.
func cutText(data []byte) (text string, rest []byte, ok bool) {
	const textOf, oneByte, twoBytes = 3 << 5, 24, 25
	if len(data) == 0 {
		return "", nil, false
	}
	n, data := int(data[0])-textOf, data[1:]
	switch {
	case n >= 0 && n < oneByte:
	case n == oneByte && len(data) >= 1 && data[0] >= oneByte:
		n, data = int(data[0]), data[1:]
	case n == twoBytes && len(data) >= 2 && data[0] > 0:
		n, data = int(binary.BigEndian.Uint16(data)), data[2:]
	default:
		return "", nil, false
	}
	if n > len(data) || !utf8.Valid(data[:n]) {
		return "", nil, false
	}
	return string(data[:n]), data[n:], true
}
