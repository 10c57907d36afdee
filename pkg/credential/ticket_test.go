package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"pgregory.net/rapid"
)

var testRoutes = []string{
	"tcp://authority.example:4000/pwta4smyxcymnz5wp27ng6aeaegwc7x7wsxvmd2qeszzqryboj5a",
	"tcp://10.0.0.1:4000/pwta4smyxcymnz5wp27ng6aeaegwc7x7wsxvmd2qeszzqryboj5a,tcp://[2001:db8::1]:4000/pwta4smyxcymnz5wp27ng6aeaegwc7x7wsxvmd2qeszzqryboj5a",
}

func newTicket(t testing.TB) (Ticket, string) {
	t.Helper()
	ticket, err := NewTicket(subject, testRoutes)
	if err != nil {
		t.Fatal(err)
	}
	text, err := ticket.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return ticket, text
}

func sameTicket(a, b Ticket) bool {
	return a.Authority == b.Authority && slices.Equal(a.Routes, b.Routes) && a.ID == b.ID && a.Secret.Equal(b.Secret)
}

// A ticket's text, to the letter: a change of it is a change of its version.
func TestKnownTicket(t *testing.T) {
	const want = "culvert_ticket_1_abn2iakyeaaaaaabaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacaubob2gg4b2f4xxezlmmf4tunbqgayaguaaaaaakaaaaaaaaaaaaaaaaaabariacaqdaqcqmbyibefawdanbyhrcohwj5ra"
	ticket := Ticket{Authority: subject, Routes: []string{"tcp://relay:4000"}, ID: TicketID(serial(5)), Secret: NewSecret([]byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x11"))}
	if got, err := ticket.Encode(); err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestTicketRoundTrip(t *testing.T) {
	ticket, text := newTicket(t)
	for _, in := range []string{text, text + "\n", "  " + text + "\r\n"} {
		if got, err := ParseTicket(in); err != nil || !sameTicket(got, ticket) {
			t.Errorf("reads back as %v, %v", got, err)
		}
	}
	var got Ticket
	if err := got.UnmarshalText([]byte(text)); err != nil || !sameTicket(got, ticket) {
		t.Errorf("as text: %v, %v", got, err)
	}
	if err := got.UnmarshalText([]byte(text[1:])); err == nil || !sameTicket(got, ticket) {
		t.Errorf("an error has changed the ticket: %v", got)
	}
	if other, _ := newTicket(t); other.ID == ticket.ID || other.Secret.Equal(ticket.Secret) {
		t.Error("two tickets with one id or secret")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }) {
		t.Errorf("%s needs quoting somewhere", text)
	}
	var doc struct{ Ticket string }
	if err := yaml.Unmarshal([]byte("ticket: "+text+"\n"), &doc); err != nil || doc.Ticket != text {
		t.Errorf("through YAML: %q, %v", doc.Ticket, err)
	}
}

// A ticket that lost its end says so, and one with a letter changed says that.
func TestTicketTruncatedOrDamaged(t *testing.T) {
	_, text := newTicket(t)
	for i := 1; i < len(text); i++ {
		_, err := ParseTicket(text[:i])
		if !errors.Is(err, ErrTicketTruncated) {
			t.Errorf("cut to %d characters: %v, want it to be cut off", i, err)
		}
	}
	start := len(ticketPrefix) + len(ticketVersion)
	for i := start; i < len(text); i++ {
		for _, c := range []byte{'a', 'q', '7'} {
			if text[i] == c {
				continue
			}
			bad := []byte(text)
			bad[i] = c
			_, err := ParseTicket(string(bad))
			// In the length, what is mistyped can look like what is missing.
			if !errors.Is(err, ErrTicketDamaged) && !(i < start+4 && errors.Is(err, ErrTicketTruncated)) {
				t.Errorf("character %d changed to %c: %v", i, c, err)
			}
		}
	}
	for _, bad := range []string{text + "a", text + "aa", text + text, text[:60] + text[61:] + "a", text[:50] + "\n" + text[50:], text[:50] + "A" + text[51:]} {
		if _, err := ParseTicket(bad); !errors.Is(err, ErrTicketDamaged) {
			t.Errorf("%q: %v, want it to be damaged", bad, err)
		}
	}
}

func TestParseTicketRefuses(t *testing.T) {
	_, text := newTicket(t)
	encoded := func(f func(w *wireTicket)) string {
		w := wireTicket{subject[:], testRoutes, bytes.Repeat([]byte{1}, 16), make([]byte, 32)}
		f(&w)
		return frameTicket(t, encode(t, w))
	}
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "it is empty"},
		{"blank", " \n", "it is empty"},
		{"an identifier", subject.String(), "does not begin with culvert_ticket_"},
		{"the next version", strings.Replace(text, "_1_", "_2_", 1), "another version than 1"},
		{"too long", ticketPrefix + strings.Repeat("a", MaxTicketLen), "more than 36864"},
		{"no routes", encoded(func(w *wireTicket) { w.Routes = []string{} }), "0 routes"},
		{"nine routes", encoded(func(w *wireTicket) { w.Routes = slices.Repeat([]string{"r"}, 9) }), "9 routes"},
		{"empty route", encoded(func(w *wireTicket) { w.Routes = []string{"r", ""} }), "route 2 has 0 bytes"},
		{"long route", encoded(func(w *wireTicket) { w.Routes = []string{strings.Repeat("r", MaxRouteLen+1)} }), "route 1 has 2561 bytes"},
		{"hostile route", encoded(func(w *wireTicket) { w.Routes = []string{"tcp://a\x1b[2J"} }), "route 1 has characters other than printable ASCII"},
		{"short secret", encoded(func(w *wireTicket) { w.Secret = make([]byte, 15) }), "secret has 15 bytes"},
		{"long secret", encoded(func(w *wireTicket) { w.Secret = make([]byte, 65) }), "secret has 65 bytes"},
		{"nobody's", encoded(func(w *wireTicket) { w.Authority = make([]byte, 32) }), "authority is all zero"},
		{"short id", encoded(func(w *wireTicket) { w.ID = w.ID[1:] }), "id has 15 bytes"},
		{"unknown field", frameTicket(t, encode(t, map[int]any{1: subject[:], 2: testRoutes, 3: make([]byte, 16), 4: make([]byte, 32), 5: 1})), "unknown"},
		{"not canonical", frameTicket(t, []byte{0xbf, 0xff}), "decoding CBOR"},
	} {
		_, err := ParseTicket(tt.in)
		wantText(t, err, "reading ticket: ", tt.want)
	}
	if _, err := ParseTicket(encoded(func(*wireTicket) {})); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	longest := slices.Repeat([]string{strings.Repeat("r", MaxRouteLen)}, MaxTicketRoutes)
	if text := encoded(func(w *wireTicket) { w.Routes, w.Secret = longest, make([]byte, MaxTicketSecret) }); len(text) > MaxTicketLen {
		t.Errorf("the longest ticket has %d characters", len(text))
	} else if _, err := ParseTicket(text); err != nil {
		t.Errorf("the longest ticket: %v", err)
	}
	for _, routes := range [][]string{nil, {"a b"}, slices.Repeat([]string{"r"}, 9)} {
		if _, err := NewTicket(subject, routes); err == nil {
			t.Errorf("routes %q: taken", routes)
		}
	}
	if _, err := (Ticket{}).Encode(); err == nil {
		t.Error("the zero ticket is encoded")
	}
}

// frameTicket makes a ticket's text of any body.
func frameTicket(t testing.TB, body []byte) string {
	t.Helper()
	raw := append([]byte{byte(len(body) >> 8), byte(len(body))}, body...)
	return ticketPrefix + ticketVersion + ticketEncoding.EncodeToString(append(raw, ticketChecksum(raw)...))
}

// No way to print a ticket, a secret or what holds one shows the secret.
func TestSecretsAreNotShown(t *testing.T) {
	ticket, text := newTicket(t)
	secret := ticket.Secret.Reveal()
	token := EnrollKubernetes{NewSecret([]byte("eyJhbGciOiJSUzI1NiJ9.token"))}
	enroll := EnrollTicket{ticket.ID, ticket.Secret}
	holder := struct {
		open   Ticket
		hidden *EnrollTicket
		Deep   []any
	}{ticket, &enroll, []any{ticket, &ticket, enroll, &enroll, token, ticket.Secret, &ticket.Secret}}
	forbidden := []string{
		text, text[20:60], string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), fmt.Sprint(secret)[1:20], fmt.Sprintf("%#v", secret)[7:30],
		base64.StdEncoding.EncodeToString(secret), "eyJhbGciOiJSUzI1NiJ9", hex.EncodeToString([]byte("eyJhbGciOi")), fmt.Sprint([]byte("eyJhbGciOi"))[1:20],
	}
	for _, v := range []any{ticket, &ticket, ticket.Secret, &ticket.Secret, enroll, &enroll, token, &token, holder, &holder, []Ticket{ticket}, map[string]Secret{"s": ticket.Secret}} {
		var prints []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%b", "%o", "%e", "%p", "%w", "% x", "%#x"} {
			prints = append(prints, fmt.Sprintf(verb, v))
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range append(prints, string(b), fmt.Sprint(v), fmt.Sprintln(v)) {
			for _, f := range forbidden {
				if strings.Contains(got, f) {
					t.Errorf("%T shows the secret: %s", v, got)
				}
			}
		}
	}
	for _, got := range []string{ticket.String(), fmt.Sprintf("%#v", ticket), ticket.Redacted()} {
		if !strings.Contains(got, ticket.ID.String()) || !strings.Contains(got, subject.String()) {
			t.Errorf("%s does not name the ticket and the authority", got)
		}
	}
	// Nor do errors show what was pasted.
	for i := range text {
		_, err := ParseTicket(text[:i] + "?" + text[i+1:])
		if err == nil || strings.Contains(err.Error(), text[30:50]) || strings.Contains(err.Error(), text[60:80]) {
			t.Fatalf("error %v", err)
		}
	}
}

func TestTicketHash(t *testing.T) {
	ticket, _ := newTicket(t)
	h := HashTicket(ticket.ID, ticket.Secret)
	if !h.Matches(ticket.ID, ticket.Secret) {
		t.Error("the secret does not match its own hash")
	}
	secret := ticket.Secret.Reveal()
	for i := range len(secret) * 8 {
		bad := bytes.Clone(secret)
		bad[i/8] ^= 1 << (i % 8)
		if h.Matches(ticket.ID, NewSecret(bad)) {
			t.Errorf("bit %d flipped: matches", i)
		}
	}
	if h.Matches(TicketID{1}, ticket.Secret) || h.Matches(ticket.ID, Secret{}) || h.Matches(ticket.ID, NewSecret(secret[:31])) || (TicketHash{}).Matches(ticket.ID, ticket.Secret) {
		t.Error("something else matches")
	}
	if bytes.Contains(h[:], secret[:8]) {
		t.Error("the hash holds the secret")
	}
}

func TestSecretIsACopy(t *testing.T) {
	b := []byte("a secret of some length")
	s := NewSecret(b)
	clear(b)
	clear(s.Reveal())
	if string(s.Reveal()) != "a secret of some length" || s.Len() != 23 {
		t.Error("writing to what went in or came out changed the secret")
	}
	if !(Secret{}).Equal(NewSecret(nil)) || (Secret{}).Equal(s) || !s.Equal(s) {
		t.Error("Equal")
	}
}

func TestTicketIDText(t *testing.T) {
	id := TicketID(serial(7))
	if got, err := ParseTicketID(id.String()); err != nil || got != id {
		t.Errorf("%s reads back as %s, %v", id, got, err)
	}
	for _, text := range []string{"", "00", strings.Repeat("0", 32), strings.Repeat("A", 32), id.String() + "0"} {
		if _, err := ParseTicketID(text); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
}

func TestTicketProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := Ticket{
			Authority: identifier(rapid.Uint32().Draw(rt, "authority")),
			Routes:    rapid.SliceOfN(rapid.StringMatching(`[!-~]{1,80}`), 1, MaxTicketRoutes).Draw(rt, "routes"),
			ID:        TicketID(serial(rapid.Uint32().Draw(rt, "id"))),
			Secret:    NewSecret(rapid.SliceOfN(rapid.Byte(), MinTicketSecret, MaxTicketSecret).Draw(rt, "secret")),
		}
		text, err := want.Encode()
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := ParseTicket(text); err != nil || !sameTicket(got, want) {
			rt.Fatalf("%s reads back as %v, %v", text, got, err)
		}
	})
}
