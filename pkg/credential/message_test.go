package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/culvert-net/culvert/pkg/code"
)

var requests = []Request{
	EnrollTicket{TicketID(serial(1)), NewSecret(bytes.Repeat([]byte{7}, 32))},
	EnrollKubernetes{NewSecret([]byte("ey.token"))},
	EnrollKubernetes{NewSecret(bytes.Repeat([]byte("t"), MaxToken))},
	Renew{},
	FetchRevocations{},
	FetchRevocations{1 << 40},
}

var answers = []Answer{
	Issued{[]byte("a bundle")},
	Issued{make([]byte, MaxBundleLen)},
	FullRevocations{[]byte("a list")},
	DeltaRevocations{[]byte("a delta")},
	Unchanged{},
	Unchanged{5},
	Refused{code.TicketRefused, "it was used at 12:00 by another machine"},
	Refused{code.Busy, ""},
	Refused{code.Limit, strings.Repeat("r", code.MaxReason)},
}

// text shows a message with its secrets, for comparing.
func text(m any) string {
	switch m := m.(type) {
	case EnrollTicket:
		return fmt.Sprintf("%v %x", m.ID, m.Secret.Reveal())
	case EnrollKubernetes:
		return fmt.Sprintf("token %x", m.Token.Reveal())
	}
	return fmt.Sprintf("%#v", m)
}

func encodeRequest(t testing.TB, id uint32, m Request) []byte {
	t.Helper()
	b, err := AppendRequest(nil, id, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodeAnswer(t testing.TB, id uint32, m Answer) []byte {
	t.Helper()
	b, err := AppendAnswer(nil, id, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Messages behind each other come out as they went in, one byte at a time too,
// and the stream's end behind the last is io.EOF.
func TestMessagesRoundTrip(t *testing.T) {
	var b []byte
	for i, m := range requests {
		b = append(b, encodeRequest(t, uint32(i+1), m)...)
	}
	r := iotest.OneByteReader(bytes.NewReader(b))
	for i, want := range requests {
		id, got, err := ReadRequest(r)
		if err != nil || id != uint32(i+1) || text(got) != text(want) {
			t.Errorf("request %d is read as %d: %T, %v", i+1, id, got, err)
		}
	}
	if _, _, err := ReadRequest(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	b = nil
	for i, m := range answers {
		b = append(b, encodeAnswer(t, uint32(i+1), m)...)
	}
	r = iotest.OneByteReader(bytes.NewReader(b))
	for i, want := range answers {
		id, got, err := ReadAnswer(r)
		if err != nil || id != uint32(i+1) || text(got) != text(want) {
			t.Errorf("answer %d is read as %d: %T, %v", i+1, id, got, err)
		}
	}
	if _, _, err := ReadAnswer(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// The bytes, to the letter.
func TestMessageIsWhatTheDocumentationSays(t *testing.T) {
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{encodeRequest(t, 1, Renew{}), "03000001" + "00000001" + "a0"},
		{encodeRequest(t, 258, FetchRevocations{7}), "04000003" + "00000102" + "a10107"},
		{encodeRequest(t, 1, EnrollKubernetes{NewSecret([]byte("tok"))}), "02000006" + "00000001" + "a10163746f6b"},
		{encodeAnswer(t, 0, FullRevocations{[]byte{0xab}}), "11000001" + "00000000" + "ab"},
		{encodeAnswer(t, 1, Unchanged{}), "13000003" + "00000001" + "a10100"},
		{encodeAnswer(t, 1, Refused{code.Busy, "x"}), "14000007" + "00000001" + "a201182502" + "6178"},
	} {
		if got := fmt.Sprintf("%x", tt.got); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// An end in a message is never the end of the stream.
func TestMessagesCutOff(t *testing.T) {
	for _, m := range requests {
		b := encodeRequest(t, 1, m)
		for i := 1; i < len(b); i += 1 + len(b)/100 {
			if _, _, err := ReadRequest(bytes.NewReader(b[:i])); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				t.Errorf("%T cut to %d bytes: %v", m, i, err)
			}
		}
	}
	for _, m := range answers {
		b := encodeAnswer(t, 1, m)
		for i := 1; i < len(b); i += 1 + len(b)/100 {
			if _, _, err := ReadAnswer(bytes.NewReader(b[:i])); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				t.Errorf("%T cut to %d bytes: %v", m, i, err)
			}
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for _, m := range []Request{
		EnrollTicket{Secret: NewSecret(make([]byte, 32))},
		EnrollTicket{TicketID(serial(1)), NewSecret(make([]byte, 15))},
		EnrollTicket{TicketID(serial(1)), NewSecret(make([]byte, 65))},
		EnrollKubernetes{},
		EnrollKubernetes{NewSecret(make([]byte, MaxToken+1))},
		EnrollKubernetes{NewSecret([]byte{0xff})},
	} {
		if b, err := AppendRequest([]byte("before"), 1, m); err == nil || string(b) != "before" {
			t.Errorf("%T: %x, %v", m, b, err)
		}
	}
	if _, err := AppendRequest(nil, 0, Renew{}); err == nil {
		t.Error("a request with id 0")
	}
	for _, m := range []Answer{
		Issued{},
		Issued{make([]byte, MaxBundleLen+1)},
		FullRevocations{},
		FullRevocations{make([]byte, MaxListLen+1)},
		DeltaRevocations{},
		Refused{code.OK, "x"},
		Refused{code.Busy, strings.Repeat("x", code.MaxReason+1)},
		Refused{code.Busy, "\xff"},
	} {
		if b, err := AppendAnswer([]byte("before"), 1, m); err == nil || string(b) != "before" {
			t.Errorf("%T: %d bytes, %v", m, len(b), err)
		}
	}
	for _, m := range answers {
		_, err := AppendAnswer(nil, 0, m)
		_, full := m.(FullRevocations)
		_, delta := m.(DeltaRevocations)
		if (err == nil) != (full || delta) {
			t.Errorf("%T with id 0: %v", m, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	frame := func(kind byte, id byte, body string) []byte {
		return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body)), 0, 0, 0, id}, body...)
	}
	secret := "\x58\x20" + strings.Repeat("s", 32)
	ticket := "\x50" + strings.Repeat("i", 16)
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"kind 0", frame(0, 1, "\xa0"), "kind 0 is no request"},
		{"kind 5", frame(5, 1, "\xa0"), "kind 5 is no request"},
		{"an answer", frame(19, 1, "\xa1\x01\x00"), "kind 19 is no request"},
		{"id 0", frame(3, 0, "\xa0"), "id is 0"},
		{"a list's length", []byte{2, 0x7f, 0, 0, 0, 0, 0, 1}, "8323072 bytes, at most 16448"},
		{"null", frame(3, 1, "\xf6"), "not a map"},
		{"no body", frame(3, 1, ""), "not a map"},
		{"no number", frame(4, 1, "\xa0"), "names no number"},
		{"negative number", frame(4, 1, "\xa1\x01\x20"), "decoding CBOR"},
		{"number longer than needed", frame(4, 1, "\xa1\x01\x18\x01"), "not in deterministic encoding"},
		{"behind the body", frame(4, 1, "\xa1\x01\x01\x00"), "decoding CBOR"},
		{"no secret", frame(1, 1, "\xa1\x01"+ticket), "secret has 0 bytes"},
		{"no ticket", frame(1, 1, "\xa1\x02"+secret), "ticket's id has 0 bytes"},
		{"text for a secret", frame(1, 1, "\xa2\x01"+ticket+"\x02\x78\x20"+strings.Repeat("s", 32)), "decoding CBOR"},
		{"no token", frame(2, 1, "\xa0"), "token has 0 bytes"},
		{"token not UTF-8", frame(2, 1, "\xa1\x01\x61\xff"), "decoding CBOR"},
	} {
		_, m, err := ReadRequest(bytes.NewReader(tt.in))
		wantText(t, err, "reading request: ", tt.want)
		if m != nil {
			t.Errorf("%s: a message beside the error", tt.name)
		}
	}
	for _, tt := range []struct {
		in   []byte
		want string
	}{
		{frame(3, 1, "\xa0"), "kind 3 is no answer"},
		{frame(21, 1, "\xa0"), "kind 21 is no answer"},
		{frame(19, 0, "\xa1\x01\x00"), "id is 0"},
		{[]byte{16, 0x10, 0, 0, 0, 0, 0, 1}, "1048576 bytes, at most 8256"},
		{[]byte{17, 0x80, 0, 1, 0, 0, 0, 1}, "8388609 bytes, at most 8388608"},
		{frame(17, 1, ""), "list has 0 bytes"},
		{frame(16, 1, "\xa0"), "credential has 0 bytes"},
		{frame(20, 1, "\xa1\x01\x00"), "refusal with code ok"},
		{frame(20, 1, "\xa1\x02\x61x"), "refusal with code ok"},
		{frame(20, 1, "\xa1\x01\x1a\x00\x01\x00\x00"), "decoding CBOR"},
	} {
		_, m, err := ReadAnswer(bytes.NewReader(tt.in))
		wantText(t, err, "reading answer: ", tt.want)
		if m != nil {
			t.Errorf("%x: a message beside the error", tt.in)
		}
	}
	// What a later version adds is passed over.
	id, m, err := ReadRequest(bytes.NewReader(frame(3, 1, "\xa1\x09\x61x")))
	if err != nil || id != 1 || m != (Renew{}) {
		t.Errorf("an unknown field: %v, %v", m, err)
	}
}

// No error of a reader shows what was in a request.
func TestReadErrorsShowNoSecret(t *testing.T) {
	b := encodeRequest(t, 1, EnrollKubernetes{NewSecret([]byte("eyJhbGciOi.the-token"))})
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if _, _, err := ReadRequest(bytes.NewReader(bad)); err != nil && strings.Contains(err.Error(), "JhbG") {
			t.Errorf("bit %d flipped: %v", i, err)
		}
	}
}

// What a head says of a length is not allocated before it has come.
func TestReadingAllocatesWhatIsThere(t *testing.T) {
	for name, f := range map[string]func(){
		"answer":  func() { _, _, _ = ReadAnswer(bytes.NewReader([]byte{17, 0x7f, 0xff, 0xff, 0, 0, 0, 0, 0xa0})) },
		"request": func() { _, _, _ = ReadRequest(bytes.NewReader([]byte{2, 0, 0x40, 0, 0, 0, 0, 1, 0xa0})) },
	} {
		if got := allocated(f); got > 64<<10 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}
