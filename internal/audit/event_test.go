package audit

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/identity"
)

func testProcess() Process {
	return Process{Component: "outlet", Identifier: identity.Identifier{1}, Instance: strings.Repeat("ab", 16)}
}

// encode returns the line of an event.
func encode(p Process, seq uint64, at time.Time, e *Event) []byte {
	return appendTail(appendHead(nil, seq, at), appendProcess(nil, &p), e)
}

// decode reads one line, which must be all of b.
func decode(t interface{ Fatalf(string, ...any) }, b []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("line %q: %v", b, err)
	}
	if bytes.IndexByte(b, '\n') != len(b)-1 || d.More() {
		t.Fatalf("%q is not one line", b)
	}
	return m
}

func TestLine(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7890, time.FixedZone("x", 3600))
	id, self := identity.Identifier{2}.String(), identity.Identifier{1}.String()
	for _, tt := range []struct {
		name string
		e    Event
		want string
	}{
		{
			"allowed",
			Event{
				Kind: Decision, Action: Open, ID: "c/1", Allowed: true, Peer: Peer{identity.Identifier{2}, "cd", []string{"01", "02"}}, Remote: "192.0.2.1:2",
				Route: "tcp://r:1/x", Service: "orders-db", Target: "127.0.0.1:5432", Client: "127.0.0.1:9", Code: "ok",
			},
			`"event":"decision","action":"open","id":"c/1","decision":"allowed","peer":"` + id + `","peer_instance":"cd","credentials":["01","02"],"remote":"192.0.2.1:2","route":"tcp://r:1/x","service":"orders-db","target":"127.0.0.1:5432","client":"127.0.0.1:9","code":"ok"`,
		},
		{
			"denied",
			Event{Kind: Decision, Action: Connect, Peer: Peer{Identifier: identity.Identifier{2}}, Code: "connect_denied", Reason: `attr "role" <is>` + "\nnot\x1b"},
			`"event":"decision","action":"connect","decision":"denied","peer":"` + id + `","credentials":[],"code":"connect_denied","reason":"attr \"role\" <is>\u000anot\u001b"`,
		},
		{
			"end",
			Event{Kind: End, Action: Open, ID: "c/1", Code: "ok", ToService: 1, ToClient: math.MaxInt64, Duration: 1500*time.Millisecond + 7*time.Microsecond},
			`"event":"end","action":"open","id":"c/1","peer":"","code":"ok","to_service":1,"to_client":9223372036854775807,"duration":1.500007`,
		},
		{
			"issued",
			Event{Kind: Decision, Allowed: true, Action: Enroll, ID: "5e", Peer: Peer{Identifier: identity.Identifier{2}}, Ticket: "0a", Serial: "5e", Subject: "s", Attributes: []string{"role=api", "team=\""}, Code: "ok"},
			`"event":"decision","action":"enroll","id":"5e","decision":"allowed","peer":"` + id + `","credentials":[],"ticket":"0a","serial":"5e","subject":"s","attributes":["role=api","team=\""],"code":"ok"`,
		},
	} {
		got := string(encode(testProcess(), 7, at, &tt.e))
		want := `{"time":"2026-02-03T03:05:06.000007Z","seq":7,"component":"outlet","identifier":"` + self + `","instance":"` + strings.Repeat("ab", 16) + `",` + tt.want + "}\n"
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
		decode(t, []byte(got))
	}
}

// No text makes a line longer than a pipe takes as one piece, breaks it, or
// leaves the words of which a reader must be sure to others.
func TestHostileTexts(t *testing.T) {
	for _, hostile := range []string{
		strings.Repeat("\x00", 5000), strings.Repeat("\xff", 5000), strings.Repeat("\U000e0001", 5000), strings.Repeat("\"", 5000), strings.Repeat("é", 5000),
	} {
		e := Event{Kind: End}
		p := testProcess()
		fill(reflect.ValueOf(&e).Elem(), hostile)
		fill(reflect.ValueOf(&p).Elem(), hostile)
		for range 100 {
			e.Peer.Credentials = append(e.Peer.Credentials, hostile)
			e.Attributes = append(e.Attributes, hostile)
		}
		e.Duration, e.ToService, e.ToClient = math.MaxInt64, math.MaxInt64, math.MaxInt64
		for _, e.Kind = range []Kind{Decision, End} {
			b := encode(p, math.MaxUint64, time.Now(), &e)
			if len(b) > MaxLine {
				t.Errorf("a line of %.10q… has %d bytes, more than %d", hostile, len(b), MaxLine)
			}
			if m := decode(t, b); e.Kind == Decision && len(m["credentials"].([]any)) != maxCredentials {
				t.Errorf("%d credentials, want %d", len(m["credentials"].([]any)), maxCredentials)
			}
		}
	}
	if head := appendHead(nil, math.MaxUint64, time.Now()); len(head) > maxHead {
		t.Errorf("a head has %d bytes, more than %d", len(head), maxHead)
	}
}

// An authority's line has room for its attributes, whoever has chosen them.
func TestAttributesAreCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.String(), rapid.StringN(0, 2000, 2000)), 1, 40).Draw(t, "attributes")
		most := rapid.IntRange(minTexts, maxAttributes).Draw(t, "most")
		o := object{[]byte("{")}
		o.listWithin("a", values, most)
		if n := len(o.b) - len(`{"a":[]`); n > most {
			t.Fatalf("%d bytes, want at most %d", n, most)
		}
		var got struct{ A []string }
		if err := json.Unmarshal(append(o.b, '}'), &got); err != nil {
			t.Fatalf("%s: %v", o.b, err)
		}
		for i, v := range got.A {
			whole := string([]rune(values[i]))
			begin, cut := strings.CutSuffix(v, ellipsis)
			if v != whole && (!cut || !strings.HasPrefix(whole, begin)) {
				t.Fatalf("%q is written as %q", whole, v)
			}
		}
		if last := got.A[len(got.A)-1]; len(got.A) < len(values) && !strings.HasSuffix(last, ellipsis) {
			t.Fatalf("%d of %d values, and the last is %q", len(got.A), len(values), last)
		}
	})
	e := Event{Kind: Decision, Action: Enroll, Peer: Peer{Identifier: identity.Identifier{2}}, Route: "admin", Ticket: strings.Repeat("0", 32), Serial: strings.Repeat("0", 32), Subject: strings.Repeat("s", 512), Attributes: []string{strings.Repeat("x", 900)}, Reason: strings.Repeat("r", 2000)}
	if b := string(encode(testProcess(), 1, time.Now(), &e)); !strings.Contains(b, e.Attributes[0]) {
		t.Errorf("%s has not all attributes", b)
	}
}

// fill sets all texts of a struct.
func fill(v reflect.Value, text string) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(text)
		case reflect.Struct:
			fill(f, text)
		}
	}
}

// What is written reads back as what it was, up to where it was cut.
func checkText(t interface{ Fatalf(string, ...any) }, s string, most int) {
	b := appendText(nil, s, most)
	var got string
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%q is written as %q: %v", s, b, err)
	}
	if len(b)-2 > most {
		t.Fatalf("%q is written as %d bytes, want at most %d", s, len(b)-2, most)
	}
	for _, r := range string(b) {
		if r < ' ' || r == 0x7f || r == utf8.RuneError && !strings.ContainsRune(s, r) && utf8.ValidString(s) {
			t.Fatalf("%q is written as %q", s, b)
		}
	}
	want := strings.ToValidUTF8(s, "")
	whole := string([]rune(s)) // each bad byte is one U+FFFD
	if got == whole {
		return
	}
	begin, cut := strings.CutSuffix(got, ellipsis)
	if !cut || !strings.HasPrefix(whole, begin) {
		t.Fatalf("%q is written as %q, which reads as %q (%q)", s, b, got, want)
	}
}

func TestTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		checkText(t, s, rapid.IntRange(3, 64).Draw(t, "most"))
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "\x00\x1b[31m", "\xff\xfe", "\u202egnp.exe", "\u2028", "\U000e0001", `"\`, strings.Repeat("x", 300)} {
		f.Add(s, 100)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < len(ellipsis) || most > 1<<16 {
			t.Skip()
		}
		checkText(t, s, most)
	})
}
