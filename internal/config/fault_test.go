package config

import (
	"errors"
	"strings"
	"testing"
)

// A faultCase is a file, arguments and variables, and all that is wrong with
// them, a line each.
type faultCase struct {
	name string
	kind Kind
	file string
	args []string
	env  []string
	want string
}

func testFaults(t *testing.T, cases []faultCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			file := inFolder(t, tt.kind, tt.file)
			got, err := load(tt.kind, source(t, tt.kind, file, tt.args, tt.env))
			if err == nil {
				t.Fatalf("no error, got %+v\nwant: %s", got, tt.want)
			}
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Errorf("error is %T, want Faults", err)
			}
			if g, w := unfill(err.Error()), strings.TrimSpace(tt.want); g != w {
				t.Errorf("file:\n%s\nargs: %q env: %q\ngot:\n%s\nwant:\n%s", tt.file, tt.args, tt.env, g, w)
			}
		})
	}
}
