package config

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// onceOnly are keys that matter at a process's first start alone: whether a change of them
// is one to the process that runs, those that know what it is have to say.
var onceOnly = []string{"ticket", "ticket_file", "ticket_routes"}

// Changed returns the keys at the top of a settings file whose settings are not the
// same in was and is, in the order of the struct, but for those in except. Policies
// are the same only where they are one object.
func Changed[C any](was, is *C, except ...string) []string {
	return changed(reflect.ValueOf(was).Elem(), reflect.ValueOf(is).Elem(), except)
}

func changed(was, is reflect.Value, except []string) (keys []string) {
	for i := range was.NumField() {
		f := was.Type().Field(i)
		key := keyOf(f.Name)
		switch {
		case f.Anonymous:
			keys = append(keys, changed(was.Field(i), is.Field(i), except)...)
		case !f.IsExported(), slices.Contains(onceOnly, key), slices.Contains(except, key):
		case f.Type.Kind() == reflect.Slice && was.Field(i).Len()+is.Field(i).Len() == 0: // none is none
		case !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()):
			keys = append(keys, key)
		}
	}
	return keys
}

// keyOf returns the key of a field: "drain_timeout" of DrainTimeout.
func keyOf(field string) string {
	var b strings.Builder
	for i, r := range field {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
