package config

import (
	"strings"
	"unicode/utf8"
)

// placeIn returns the place of a character of a text, given by line and column
// in the text, where that can be found in the file; else the text's own.
func (d *decoder) placeIn(v *value, line, column int) Origin {
	if v.at.Line == 0 || d.text == "" {
		return v.at
	}
	offset := 0
	for range line - 1 {
		offset += strings.IndexByte(v.text[offset:], '\n') + 1
	}
	for range column - 1 {
		_, n := utf8.DecodeRuneInString(v.text[offset:])
		offset += n
	}
	written := v.text
	if v.written != "" {
		written, offset = v.written, v.unexpand(offset)
	}
	if at, ok := locate(d.text, v.at, written, offset); ok {
		return at
	}
	return v.at
}

// unexpand returns where in what was written the byte of the text at offset
// comes from: what a variable held comes from its name.
func (v *value) unexpand(offset int) int {
	last := mark{}
	for _, m := range v.marks {
		if m.expanded <= offset {
			last = m
		}
	}
	if last.variable {
		return last.written
	}
	return last.written + offset - last.expanded
}

// locate returns the place of the byte at offset of a scalar's text in the file
// that it is written in, at at. White space may differ: YAML folds and indents.
func locate(file string, at Origin, text string, offset int) (Origin, bool) {
	pos := offsetOf(file, at)
	if pos >= len(file) {
		return at, false
	}
	quoted := byte(0)
	switch file[pos] {
	case '\'', '"':
		quoted = file[pos]
		pos++
	case '|', '>':
		pos += strings.IndexByte(file[pos:]+"\n", '\n')
	}
	last := pos // behind the character before
	for i := 0; ; {
		for i < len(text) && blank(text[i]) {
			i++
		}
		if i >= len(text) {
			return placeOf(file, at.File, last), true // the text's end
		}
		pos = skipBlanks(file, pos, quoted)
		if i >= offset {
			return placeOf(file, at.File, pos), true
		}
		n := unquote(file, pos, quoted, text[i])
		if n == 0 {
			return at, false
		}
		i, pos = i+1, pos+n
		last = pos
	}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// skipBlanks returns where the next character is that is no white space, nor
// stands for some.
func skipBlanks(file string, pos int, quoted byte) int {
	for pos < len(file) {
		switch {
		case blank(file[pos]):
			pos++
		case quoted == '"' && file[pos] == '\\' && pos+1 < len(file) && strings.IndexByte("nt \n\r", file[pos+1]) >= 0:
			pos += 2
		default:
			return pos
		}
	}
	return pos
}

// unquote returns how many bytes at pos stand for c; 0 if it is not there.
func unquote(file string, pos int, quoted, c byte) int {
	rest := file[min(pos, len(file)):]
	switch {
	case quoted == '\'' && c == '\'' && strings.HasPrefix(rest, "''"):
		return 2
	case quoted == '"' && (c == '"' || c == '\\' || c == '/') && strings.HasPrefix(rest, `\`+string(c)):
		return 2
	case quoted == '"' && strings.HasPrefix(rest, `\`):
		return 0
	case rest != "" && rest[0] == c:
		return 1
	}
	return 0
}

// offsetOf returns where a place is in a file, in bytes.
func offsetOf(file string, at Origin) int {
	offset := 0
	for range at.Line - 1 {
		i := strings.IndexByte(file[offset:], '\n')
		if i < 0 {
			return len(file)
		}
		offset += i + 1
	}
	for range at.Column - 1 {
		if offset >= len(file) {
			break
		}
		_, n := utf8.DecodeRuneInString(file[offset:])
		offset += n
	}
	return offset
}

// placeOf is the reverse of offsetOf.
func placeOf(file, name string, offset int) Origin {
	before := file[:min(offset, len(file))]
	line := strings.Count(before, "\n") + 1
	return Origin{File: name, Line: line, Column: utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1}
}
