package credential

import (
	"fmt"
	"maps"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Bounds of a credential's attributes.
const (
	MaxAttributes   = 32
	MaxAttributeKey = 64  // bytes
	MaxAttribute    = 256 // bytes of a value
)

// Attributes are what an authority says of an identity, by name: what a policy
// asks for. A name is 1 to 64 of a-z 0-9 . _ - and a value at most 256 bytes of
// UTF-8 without control characters; there are at most 32.
type Attributes map[string]string

// Check says what is wrong with a. Of several faults it names the one whose
// attribute sorts first.
func (a Attributes) Check() error {
	if len(a) > MaxAttributes {
		return fmt.Errorf("%d attributes, at most %d", len(a), MaxAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if err := checkName(name); err != nil {
			return err
		}
		if err := checkValue(a[name]); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxAttributeKey {
		return fmt.Errorf("an attribute's name has %d bytes, want 1 to %d", len(name), MaxAttributeKey)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("attribute %+q: a name has only a-z 0-9 . _ -", name)
		}
	}
	return nil
}

func checkValue(value string) error {
	if len(value) > MaxAttribute {
		return fmt.Errorf("its value has %d bytes, at most %d", len(value), MaxAttribute)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("its value %+q is not valid UTF-8", value)
	}
	for _, r := range value {
		if unicode.Is(controls, r) {
			return fmt.Errorf("its value %+q holds the control character %U", value, r)
		}
	}
	return nil
}

// controls are the characters that no value holds: those that move a cursor,
// end a line, turn or hide text, so that two values that look the same are the
// same as far as that can be had. The table is fixed, rather than a category
// of Unicode that grows, so that all verifiers agree.
var controls = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x0000, Hi: 0x001f, Stride: 1}, // C0
		{Lo: 0x007f, Hi: 0x009f, Stride: 1}, // DEL and C1
		{Lo: 0x061c, Hi: 0x061c, Stride: 1}, // Arabic letter mark
		{Lo: 0x200b, Hi: 0x200f, Stride: 1}, // of no width, and marks of direction
		{Lo: 0x2028, Hi: 0x202e, Stride: 1}, // ends of lines and paragraphs, directions
		{Lo: 0x2060, Hi: 0x206f, Stride: 1}, // invisible operators, directions
		{Lo: 0xfeff, Hi: 0xfeff, Stride: 1}, // byte order mark
		{Lo: 0xfff9, Hi: 0xfffb, Stride: 1}, // annotations
	},
	R32:         []unicode.Range32{{Lo: 0xe0000, Hi: 0xe007f, Stride: 1}}, // tags
	LatinOffset: 2,
}
