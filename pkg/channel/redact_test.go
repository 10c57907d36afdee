package channel

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestNoVerbPrintsAKey(t *testing.T) {
	l := newLocal(t)
	a, b := tcpPair(t)
	x, y := connPair(t, a, b, Options{})
	key := l.shown.static.Bytes()
	forms := []string{string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), strings.Trim(fmt.Sprint(key), "[]")}
	for _, v := range []any{l, x, &Incoming{conn: y}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
			got := fmt.Sprintf(verb, v)
			for _, f := range forms {
				if strings.Contains(got, f) {
					t.Errorf("%s of %T prints the key", verb, v)
				}
			}
			if !strings.Contains(got, "redacted") {
				t.Errorf("%s of %T = %q, want it redacted", verb, v, got)
			}
		}
	}
	closeBoth(t, x, y)
}
