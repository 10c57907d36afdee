package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// An Operation is one of a JSON patch (RFC 6902): add, replace or remove.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"` // a JSON pointer (RFC 6901)
	Value any    `json:"value,omitempty"`
}

// MarshalJSON keeps a value that is null, or false, which omitempty would not.
func (o Operation) MarshalJSON() ([]byte, error) {
	if o.Op == "remove" {
		return json.Marshal(map[string]any{"op": o.Op, "path": o.Path})
	}
	return json.Marshal(map[string]any{"op": o.Op, "path": o.Path, "value": o.Value})
}

// Diff returns the operations that make b out of a: few where b was made of a by
// adding to it. Both hold what [encoding/json.Decoder] makes with UseNumber.
func Diff(a, b any) []Operation { return diff(nil, "", a, b) }

func diff(ops []Operation, path string, a, b any) []Operation {
	if reflect.DeepEqual(a, b) {
		return ops
	}
	switch x := a.(type) {
	case object:
		if y, ok := b.(object); ok {
			return diffObjects(ops, path, x, y)
		}
	case []any:
		if y, ok := b.([]any); ok {
			return diffLists(ops, path, x, y)
		}
	}
	return append(ops, Operation{"replace", path, b})
}

func diffObjects(ops []Operation, path string, a, b object) []Operation {
	for _, key := range sortedKeys(a) {
		if _, ok := b[key]; !ok {
			ops = append(ops, Operation{Op: "remove", Path: path + "/" + escape(key)})
		}
	}
	for _, key := range sortedKeys(b) {
		at := path + "/" + escape(key)
		if old, ok := a[key]; ok {
			ops = diff(ops, at, old, b[key])
		} else {
			ops = append(ops, Operation{"add", at, b[key]})
		}
	}
	return ops
}

// diffLists leaves alone what begins and ends both lists.
func diffLists(ops []Operation, path string, a, b []any) []Operation {
	first := 0
	for first < min(len(a), len(b)) && reflect.DeepEqual(a[first], b[first]) {
		first++
	}
	a, b = a[first:], b[first:]
	for len(a) > 0 && len(b) > 0 && reflect.DeepEqual(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	at := func(i int) string { return path + "/" + strconv.Itoa(first+i) }
	both := min(len(a), len(b))
	for i := range both {
		ops = diff(ops, at(i), a[i], b[i])
	}
	for i := len(a) - 1; i >= both; i-- {
		ops = append(ops, Operation{Op: "remove", Path: at(i)})
	}
	for i := both; i < len(b); i++ {
		ops = append(ops, Operation{"add", at(i), b[i]})
	}
	return ops
}

// pointerEscapes are those of RFC 6901, section 3; never written.
var (
	pointerEscapes   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescapes = strings.NewReplacer("~1", "/", "~0", "~")
)

func escape(key string) string { return pointerEscapes.Replace(key) }

// tokens returns the keys and indices of a pointer.
func tokens(pointer string) []string {
	if pointer == "" {
		return nil
	}
	list := strings.Split(pointer[1:], "/")
	for i, t := range list {
		list[i] = pointerUnescapes.Replace(t)
	}
	return list
}

// index returns the place in a list of length n that a token names; for adding, one
// behind the last, too.
func index(token string, n int, adding bool) (int, error) {
	i, err := strconv.Atoi(token)
	if err != nil || i < 0 || i > n || i == n && !adding {
		return 0, fmt.Errorf("no place %q in a list of %d", token, n)
	}
	return i, nil
}

var errNoPlace = errors.New("no such place")

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
