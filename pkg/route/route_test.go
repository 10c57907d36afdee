package route

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/identity"
)

// Two identifiers: canonical text, of no identity.
var (
	idA = strings.Repeat("a", 51) + "q"
	idB = strings.Repeat("b", 51) + "a"
)

func id(t testing.TB, s string) identity.Identifier {
	t.Helper()
	i, err := identity.ParseIdentifier(s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestParse(t *testing.T) {
	a, b := id(t, idA), id(t, idB)
	for _, tc := range []struct {
		in    string
		want  Route
		print string // "" means in
	}{
		{"tcp://relay:4000/" + idA, Route{{"relay", 4000, a}}, ""},
		{
			"tcp://relay-b.example.com:4000/" + idA + ",tcp://10.0.0.7:1/" + idB,
			Route{{"relay-b.example.com", 4000, a}, {"10.0.0.7", 1, b}},
			"",
		},
		{"tcp://[2001:db8::1]:65535/" + idA, Route{{"2001:db8::1", 65535, a}}, ""},
		{"tcp://[2001:DB8:0:0::1]:443/" + idA, Route{{"2001:db8::1", 443, a}}, "tcp://[2001:db8::1]:443/" + idA},
		{"tcp://[::ffff:10.1.2.3]:443/" + idA, Route{{"10.1.2.3", 443, a}}, "tcp://10.1.2.3:443/" + idA},
		{"tcp://Relay.Example.COM.:4000/" + idA, Route{{"relay.example.com", 4000, a}}, "tcp://relay.example.com:4000/" + idA},
		{"tcp://my_relay.ns.svc:4000/" + idA, Route{{"my_relay.ns.svc", 4000, a}}, ""},
		{
			" tcp://a:1/" + idA + " ,\n\t tcp://b:2/" + idB + "\n",
			Route{{"a", 1, a}, {"b", 2, b}},
			"tcp://a:1/" + idA + ",tcp://b:2/" + idB,
		},
	} {
		got, err := Parse(tc.in)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("Parse(%q): got %v, %v; want %v", tc.in, got, err, tc.want)
			continue
		}
		if tc.print == "" {
			tc.print = tc.in
		}
		if got.String() != tc.print {
			t.Errorf("Parse(%q).String(): got %q, want %q", tc.in, got, tc.print)
		}
	}
}

// Every refusal says what is wrong.
func TestParseRefuses(t *testing.T) {
	hop := "tcp://relay:4000/" + idA
	for _, tc := range []struct{ in, want string }{
		{"", "route is empty"},
		{" \n", "route is empty"},
		{hop + ",", "hop 2 of 2: hop is empty"},
		{hop + ",," + hop, "hop 2 of 3: hop is empty"},
		{strings.Repeat(hop+",", 8) + hop, "9 hops, at most 8"},
		{strings.Repeat(",", 1<<20), "at most 8"},
		{"relay:4000/" + idA, "does not begin with tcp://"},
		{"TCP://relay:4000/" + idA, "does not begin with tcp://"},
		{"udp://relay:4000/" + idA, "does not begin with tcp://"},
		{"tcp://relay:4000", "has no identifier"},
		{"tcp://relay:4000/", "has no identifier"},
		{"tcp://relay/" + idA, "missing port"},
		{"tcp://:4000/" + idA, "host is empty"},
		{"tcp://relay:/" + idA, "port \"\" is not a number from 1 to 65535"},
		{"tcp://relay:0/" + idA, "is not a number from 1 to 65535"},
		{"tcp://relay:04000/" + idA, "is not a number from 1 to 65535"},
		{"tcp://relay:+4000/" + idA, "is not a number from 1 to 65535"},
		{"tcp://relay:65536/" + idA, "is not a number from 1 to 65535"},
		{"tcp://relay:http/" + idA, "is not a number from 1 to 65535"},
		{"tcp://2001:db8::1:4000/" + idA, "too many colons"},
		{"tcp://[2001:db8::1%eth0]:4000/" + idA, "has a zone"},
		{"tcp://[10.0.0.1]:4000/" + idA, "leave the brackets out"},
		{"tcp://[relay]:4000/" + idA, "no IPv6 address"},
		{"tcp://10.0.0:4000/" + idA, "no valid IP address"},
		{"tcp://300.0.0.1:4000/" + idA, "no valid IP address"},
		{"tcp://re lay:4000/" + idA, "cannot be in a host name"},
		{"tcp://rel\x00ay:4000/" + idA, "cannot be in a host name"},
		{"tcp://user@relay:4000/" + idA, "cannot be in a host name"},
		{"tcp://réseau:4000/" + idA, "cannot be in a host name"},
		{"tcp://-relay:4000/" + idA, "hyphen"},
		{"tcp://a..b:4000/" + idA, "two dots"},
		{"tcp://.:4000/" + idA, "two dots"},
		{"tcp://" + strings.Repeat("a", 64) + ":4000/" + idA, "at most 63"},
		{"tcp://" + strings.Repeat("a.", 127) + ":4000/" + idA, "at most 253"},
		{hop + "/", "identifier"},
		{hop + "?x=1", "identifier"},
		{"tcp://relay:4000/" + strings.ToUpper(idA), "upper-case"},
		{"tcp://relay:4000/" + idA[1:], "has 51 characters, want 52"},
		{"tcp://relay:4000/" + strings.Repeat("a", 51) + "b", "mistyped"},
	} {
		got, err := Parse(tc.in)
		if err == nil {
			t.Errorf("Parse(%q): got %v, want an error with %q", tc.in, got, tc.want)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Parse(%q): got error %q, want %q in it", tc.in, err, tc.want)
		}
		if len(err.Error()) > 400 {
			t.Errorf("Parse of %d bytes: the error has %d", len(tc.in), len(err.Error()))
		}
	}
}

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in, host string
		port     uint16
	}{
		{"tcp://0.0.0.0:4000", "0.0.0.0", 4000},
		{"tcp://[::]:1", "::", 1},
		{"tcp://relay-b:4000", "relay-b", 4000},
	} {
		host, port, err := ParseAddress(tc.in)
		if err != nil || host != tc.host || port != tc.port {
			t.Errorf("ParseAddress(%q): got %q, %d, %v", tc.in, host, port, err)
		}
	}
	for _, tc := range []struct{ in, want string }{
		{"", "does not begin with tcp://"},
		{"relay:4000", "does not begin with tcp://"},
		{"tcp://:4000", "host is empty"},
		{"tcp://relay:4000/" + idA, "tcp://host:port alone"},
		{"tcp://relay:4000/", "tcp://host:port alone"},
		{"tcp://relay", "missing port"},
	} {
		if _, _, err := ParseAddress(tc.in); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("ParseAddress(%q): got error %v, want %q in it", tc.in, err, tc.want)
		}
	}
}

func TestText(t *testing.T) {
	want := Route{{"relay", 4000, id(t, idA)}, {"2001:db8::1", 1, id(t, idB)}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Route
	if err := json.Unmarshal(b, &got); err != nil || !slices.Equal(got, want) {
		t.Errorf("through JSON: got %v, %v; want %v", got, err, want)
	}
	if err := got.UnmarshalText([]byte("nonsense")); err == nil || !slices.Equal(got, want) {
		t.Errorf("after a failed UnmarshalText: %v, %v; want an error and the old route", got, err)
	}
	h := want[0]
	if err := h.UnmarshalText([]byte("nonsense")); err == nil || h != want[0] {
		t.Errorf("after a failed UnmarshalText: %v, %v; want an error and the old hop", h, err)
	}
	for _, bad := range []Route{
		nil,
		make(Route, 9),
		{{}},
		{{"relay", 0, id(t, idA)}},
		{{"relay,tcp://evil:1", 4000, id(t, idA)}},
		{{"RELAY", 4000, id(t, idA)}},
		{{"[::1]", 4000, id(t, idA)}},
		{{"relay", 4000, identity.Identifier{}}},
	} {
		if b, err := bad.MarshalText(); err == nil {
			t.Errorf("MarshalText of %#v: got %q, want an error", bad, b)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"tcp://relay:4000/" + idA,
		"tcp://relay-a:4000/" + idA + ",tcp://[2001:db8::1]:443/" + idB,
		"tcp://[::ffff:1.2.3.4]:1/" + idA,
		"tcp://a.b.:1/" + idA + " ,\ttcp://1.2.3.4:5/" + idB,
		"tcp://", ",", "", "tcp://[]:1/a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if len(r) == 0 || len(r) > MaxHops {
			t.Fatalf("%q: %d hops", s, len(r))
		}
		text, err := r.MarshalText()
		if err != nil {
			t.Fatalf("%q parses but does not print: %v", s, err)
		}
		again, err := Parse(string(text))
		if err != nil || !slices.Equal(again, r) {
			t.Fatalf("%q prints as %q, which is %v, %v", s, text, again, err)
		}
		if again.String() != string(text) {
			t.Fatalf("%q prints as %q and then as %q", s, text, again)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"tcp://0.0.0.0:4000", "tcp://[::]:1", "tcp://relay:1", "tcp://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, portAgain, err := ParseAddress("tcp://" + join(host, port))
		if err != nil || again != host || portAgain != port {
			t.Fatalf("%q is %q %d, which reads back as %q %d, %v", s, host, port, again, portAgain, err)
		}
	})
}
