package credential

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHasService(t *testing.T) {
	for _, tt := range []struct {
		value, name string
		want        bool
	}{
		{"orders-db", "orders-db", true},
		{"orders-db,stock-db", "orders-db", true},
		{"orders-db,stock-db", "stock-db", true},
		{"a,orders-db,b", "orders-db", true},
		{"orders-db,", "orders-db", true},
		{",orders-db", "orders-db", true},
		{"orders-db", "orders", false},
		{"orders-db", "db", false},
		{"orders-db", "orders-db2", false},
		{"orders-db", "Orders-db", false},
		{"orders-db, stock-db", "stock-db", false},
		{"orders-db, stock-db", " stock-db", true},
		{" orders-db", "orders-db", false},
		{"orders-db ", "orders-db", false},
		{"a,b", "a,b", false},
		{"a,b", ",", false},
		{"a,b", "", false},
		{"a,,b", "", false},
		{",", "", false},
		{"", "", false},
		{"*", "orders-db", false},
	} {
		if got := HasService(Attributes{ServiceAttribute: tt.value}, tt.name); got != tt.want {
			t.Errorf("of %q: has %q is %t, want %t", tt.value, tt.name, got, tt.want)
		}
	}
	if HasService(nil, "orders-db") || HasService(nil, "") || HasService(Attributes{"services": "orders-db", "role": "orders-db"}, "orders-db") {
		t.Error("a service without the attribute")
	}
}

// A value has the names that it is made of, and no others.
func TestHasServiceIsExact(t *testing.T) {
	name := rapid.StringMatching(`[a-c ]{1,3}`)
	rapid.Check(t, func(r *rapid.T) {
		names := rapid.SliceOfN(name, 0, 5).Draw(r, "names")
		asked := name.Draw(r, "asked")
		want := false
		for _, n := range names {
			want = want || n == asked
		}
		value := strings.Join(names, ",")
		if got := HasService(Attributes{ServiceAttribute: value}, asked); got != want {
			r.Fatalf("of %q: has %q is %t, want %t", value, asked, got, want)
		}
	})
}
