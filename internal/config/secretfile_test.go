package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/credential"
)

// A ticket can be in a file of its own, which the settings, a flag or a variable names,
// and which may be gone when it has been used.
func TestTicketFile(t *testing.T) {
	_, text := aTicket(t, "tcp://authority:4001/"+fill("<ID>"))
	for name, tt := range map[string]struct {
		more      string
		args, env []string
	}{
		"file":     {more: "ticket_file: secret/a.ticket\n"},
		"flag":     {args: []string{"--ticket-file", "secret/a.ticket"}},
		"variable": {env: []string{"CULVERT_TICKET_FILE=secret/a.ticket"}},
	} {
		t.Run(name, func(t *testing.T) {
			src := source(t, KindRelay, inFolder(t, KindRelay, relayFile+"state: s\n"+tt.more), tt.args, tt.env)
			write(t, "secret/a.ticket", "\n "+text+"\n")
			c, err := LoadRelay(src)
			if err != nil || c.Ticket == nil || len(c.TicketRoutes) != 1 || c.TicketFile != filepath.Join("secret", "a.ticket") {
				t.Fatalf("got %v", err)
			}
			if err := os.Remove("secret/a.ticket"); err != nil {
				t.Fatal(err)
			}
			again, err := LoadRelay(src)
			if err != nil || again.Ticket != nil || again.TicketFile == "" {
				t.Fatalf("when it is gone: %v", err)
			}
			for _, key := range Changed(c, again) {
				if strings.HasPrefix(key, "ticket") {
					t.Errorf("that the ticket is gone changes %s", key)
				}
			}
		})
	}
}

// A secret that others can read is none, and no fault shows a part of one.
func TestSecretFileFaults(t *testing.T) {
	_, ticket := aTicket(t, "tcp://authority:4001/"+fill("<ID>"))
	const header, endpoint = "authorization: Bearer hunter2\n", "tracing: {endpoint: https://c, headers_file: secret}\n"
	many := ""
	for i := range maxHeaders + 1 {
		many += fmt.Sprintf("h%d: hunter2\n", i)
	}
	for name, tt := range map[string]struct {
		more, content string
		mode          os.FileMode
		want          string
	}{
		"ticket for others":       {"state: s\nticket_file: secret\n", ticket, 0o644, "its mode is 0644, so that others can read or write it: give it mode 0600, and take another secret if somebody may have read it"},
		"ticket the group writes": {"state: s\nticket_file: secret\n", ticket, 0o620, "its group can write it"},
		"cut ticket":              {"state: s\nticket_file: secret\n", ticket[:60], 0o600, "cut off"},
		"empty ticket":            {"state: s\nticket_file: secret\n", "\n", 0o600, "it is empty"},
		"long ticket":             {"state: s\nticket_file: secret\n", strings.Repeat("c", maxSecretFile+1), 0o600, "has more than"},
		"ticket without state":    {"ticket_file: secret\n", ticket, 0o600, "ticket_file: what it brings has to be kept"},
		"two tickets":             {"state: s\nticket: " + ticket + "\nticket_file: secret\n", ticket, 0o600, "give one of the two"},
		"ticket and token":        {"state: s\nkubernetes_token: t\nticket_file: secret\n", ticket, 0o600, "give one of the two"},
		"folder":                  {"state: s\nticket_file: .\n", "", 0o600, "is no regular file"},
		"headers for others":      {endpoint, header, 0o604, "its mode is 0604"},
		"no headers file":         {"tracing: {endpoint: https://c, headers_file: nowhere}\n", "", 0o600, "check the name and the folder"},
		"nothing":                 {endpoint, "# nothing\n\n", 0o600, "has no header"},
		"no colon":                {endpoint, "authorization=hunter2\n", 0o600, "line 1 has no colon"},
		"no name":                 {endpoint, "\n: hunter2\n", 0o600, "line 2 is no name that a header can have"},
		"space before the colon":  {endpoint, "authorization : hunter2\n", 0o600, "is no name that a header can have"},
		"no value":                {endpoint, "authorization:\n", 0o600, "has no value"},
		"the protocol's":          {endpoint, "Content-Length: 1\n", 0o600, "is set by the protocol"},
		"twice":                   {endpoint, header + "Authorization: hunter2\n", 0o600, "line 2 is there twice"},
		"in the settings, too":    {"tracing: {endpoint: https://c, headers: {Authorization: a}, headers_file: secret}\n", header, 0o600, "is there twice"},
		"too many":                {endpoint, many, 0o600, "line 33 is one too many"},
		"long value":              {endpoint, "a: " + strings.Repeat("hunter2", maxHeaderLen), 0o600, "at most 8192 fit"},
		"another line in it":      {endpoint, "a: hunter2\rb: c\n", 0o600, "holds other characters"},
		"no ASCII":                {endpoint, "a: hunter2 \u00e9\n", 0o600, "holds other characters"},
	} {
		t.Run(name, func(t *testing.T) {
			src := source(t, KindInlet, inFolder(t, KindInlet, inletFile+tt.more), nil, nil)
			write(t, "secret", tt.content)
			if err := os.Chmod("secret", tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadInlet(src)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), ticket[30:60]) {
				t.Errorf("the fault shows the secret: %v", err)
			}
		})
	}
}

// Headers of a file go beside those of the settings.
func TestHeadersFile(t *testing.T) {
	file := inletFile + "tracing: {endpoint: https://c, headers: {X-Scope-OrgID: 17}, headers_file: secret}\n"
	src := source(t, KindInlet, inFolder(t, KindInlet, file), nil, nil)
	write(t, "secret", "# of the collector\r\n\r\nAuthorization:\t Bearer a:b \r\nx-empty-not: #1")
	c := mustLoadInlet(t, src)
	want := TracingHeaders{"X-Scope-OrgID": "17", "Authorization": "Bearer a:b", "x-empty-not": "#1"}
	if got := c.Tracing; len(Changed(&Inlet{Tracing: got}, &Inlet{Tracing: Tracing{Endpoint: "https://c/v1/traces", Headers: want, HeadersFile: "secret"}})) > 0 {
		t.Errorf("got %q", map[string]string(got.Headers))
	}
	// Who only goes the inlet's ways sends no traces, and need not read them.
	if err := os.Chmod("secret", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadInletWays(src); err != nil {
		t.Errorf("for one who only goes the inlet's ways: %v", err)
	}
}

// Settings can be checked on another machine than the one whose files they name; what is
// wrong with a file that is there is a fault there, too.
func TestCheckElsewhere(t *testing.T) {
	file := inFolder(t, KindInlet, inletFile+"state: s\nticket_file: a.ticket\ntracing: {endpoint: https://c, headers_file: secret}\n")
	if _, err := Check(file, "", nil); err != nil {
		t.Errorf("without the files: %v", err)
	}
	write(t, "secret", "hunter2")
	if _, err := Check(file, "", nil); err == nil || !strings.Contains(err.Error(), "has no colon") {
		t.Errorf("with one of them: %v", err)
	}
}

// Headers, which may hold a token, go in the clear to this machine alone, unless the
// settings say that this is meant.
func TestHeadersInTheClear(t *testing.T) {
	const refused = "would show the headers, which may hold a token, to everybody on the way"
	for text, want := range map[string]string{
		"{endpoint: 'http://collector:4318', headers: {a: b}}":                 refused,
		"{endpoint: 'http://192.0.2.1:4318', headers: {a: b}}":                 refused,
		"{endpoint: 'http://127.0.0.1.example:4318', headers: {a: b}}":         refused,
		"{endpoint: 'http://[::ffff:192.0.2.1]', headers: {a: b}}":             refused,
		"{endpoint: 'http://collector:4318', headers_file: secret}":            refused,
		"{endpoint: 'http://collector', headers: {a: b}, insecure: false}":     refused,
		"{endpoint: 'http://collector', headers: {a: b}, insecure: true}":      "",
		"{endpoint: 'http://collector:4318'}":                                  "",
		"{endpoint: 'https://collector:4318', headers: {a: b}}":                "",
		"{endpoint: 'http://127.0.0.1:4318', headers: {a: b}}":                 "",
		"{endpoint: 'http://[::1]:4318', headers: {a: b}}":                     "",
		"{endpoint: 'http://localhost:4318', headers_file: secret}":            "",
		"{endpoint: 'https://collector', headers: {a: b}, insecure: true}":     "nothing is insecure",
		"{endpoint: 'http://collector', headers: {a: b}, insecure: sometimes}": "want true or false",
	} {
		src := source(t, KindInlet, inFolder(t, KindInlet, inletFile+"tracing: "+text+"\n"), nil, nil)
		write(t, "secret", "a: hunter2")
		_, err := LoadInlet(src)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzAddHeaders(f *testing.F) {
	for _, s := range []string{"a: b\nc: d", "# x\n\na:b:c", ":", "a", "a: \x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := addHeaders(TracingHeaders{"x": "y"}, b)
		if err != nil && len(h) != 1 || len(h) > maxHeaders {
			t.Fatalf("%q: %d headers, %v", b, len(h), err)
		}
		for name, value := range h {
			if !isToken(name) || value == "" || strings.ContainsAny(value, "\r\n\x00") {
				t.Errorf("%q: %q is %q", b, name, value)
			}
		}
	})
}

// The longest ticket fits into a file.
func TestLongestTicket(t *testing.T) {
	if credential.MaxTicketLen >= maxSecretFile {
		t.Errorf("a ticket has up to %d bytes, a file %d", credential.MaxTicketLen, maxSecretFile)
	}
}
