package config

import (
	"testing"
	"time"
	"fmt"
	"strings"
)

func TestProbe(t *testing.T) {
	for _, s := range []string{"[", "{a: ", "- ", "a:\n", "&a ", "a: [", " ", "a", "a: \"x\" ", "\"a\n\"", "? ", "'"} {
		for _, sep := range []string{"\n", "\n  "} {
			for _, unit := range []int{0, 100, 4000} {
				var b strings.Builder
				for b.Len() < 64<<10 {
					k := b.Len()
					for b.Len()-k <= unit { b.WriteString(s) }
					b.WriteString(sep)
				}
				st := time.Now()
				parseYAML("x.yaml", []byte(b.String()))
				if d := time.Since(st); d > 200*time.Millisecond {
					fmt.Printf("%q sep %q unit %d: %v\n", s, sep, unit, d)
				}
			}
		}
	}
}
