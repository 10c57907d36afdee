package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
)

const (
	outletID = "roa55jlcjaj7h2keefldyplbysuoxflennuaqnvrwfbigmzyekjq"
	inletID  = "6dsiyw3ugzwcj7kthhbcjuywz4dgs3ofvhkxox7i6kbcll267ooq"
)

// inletStatus is what an inlet answers with one channel, a failed route, and streams.
const inletStatus = `{
  "role": "inlet", "version": "v1.4.0", "now": "2026-11-26T12:00:00Z", "started": "2026-11-26T08:30:00Z",
  "identifier": "` + inletID + `", "instance": "0f3a", "something": {"new": [1, 2]},
  "credential": {"authority": "` + outletID + `", "connected": true, "serial": "01", "attributes": {"role": "api"}, "expires": "2026-11-26T12:42:00Z"},
  "totals": {"streams_active": 2, "streams_opened": 345, "bytes_to_service": 1048576, "bytes_to_client": 5242880},
  "services": [{"listen": "127.0.0.1:15432", "service": "orders-db", "outlet": "` + outletID + `", "streams": 2, "streams_opened": 345, "bytes_to_service": 1048576, "bytes_to_client": 5242880}],
  "channels": [{"outlet": "` + outletID + `", "channel": "ab", "state": "open", "since": "2026-11-26T11:00:00Z", "streams": 2,
    "path": {"up": true, "since": "2026-11-26T11:30:00Z", "ping_seconds": 0.0021, "keys_since": "2026-11-26T11:48:00Z", "changes": 3},
    "routes": [{"route": "tcp://relay-a:4000/` + outletID + `", "state": "in_use"},
               {"route": "tcp://relay-b:4000/` + outletID + `,tcp://relay-c:4000/` + outletID + `", "state": "failed", "error": "hop 1 of 2 (tcp://relay-b:4000/x): connection refused"}]}],
  "streams": [{"id": "1", "service": "orders-db", "peer": "` + outletID + `", "client": "10.0.0.7:51234", "since": "2026-11-26T11:59:00Z", "bytes_to_service": 10, "bytes_to_client": 20},
              {"id": "2", "service": "orders-db", "peer": "` + outletID + `", "client": "10.0.0.8:51235", "since": "2026-11-26T11:58:00Z", "bytes_to_service": 1048566, "bytes_to_client": 5242860}],
  "streams_left_off": 7
}`

func mustParse(t testing.TB, text string) *Status {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func printed(t testing.TB, s *Status, r *Readiness, opt Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Print(&b, s, r, opt); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var isReady = &Readiness{Ready: true}

// All that an inlet says is on the page, in words.
func TestPrintInlet(t *testing.T) {
	got := ansi.Strip(printed(t, mustParse(t, inletStatus), isReady, Options{Streams: 1, Address: "127.0.0.1:9101"}))
	for _, want := range []string{
		"inlet v1.4.0  ready  up 3h30m\n", "identifier  " + inletID, "127.0.0.1:9101",
		"2 streams, 345 since the start, 1.0 MiB to services, 5.0 MiB back",
		"in 42m00s, at ", "role=api", "listens at  127.0.0.1:15432",
		"roa55jlcja…  open, 2 streams, opened 1h00m ago", "up 30m00s, ping 2.1 ms, keys of 12m00s ago, 3 changes",
		"in use      relay-a:4000\n", "failed      relay-b:4000 > relay-c:4000\n", "hop 1 of 2: connection refused",
		"10.0.0.8:51235", "and 8 more",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not printed", want)
		}
	}
	if strings.Contains(got, "10.0.0.7") || t.Failed() {
		t.Errorf("printed:\n%s", got)
	}
}

// What is not ready is said first.
func TestPrintNotReady(t *testing.T) {
	r := &Readiness{Checks: []Check{{Name: "process", Ready: true}, {Name: "service orders-db", Reason: "no channel to it: still connecting"}}}
	got := ansi.Strip(printed(t, mustParse(t, `{}`), r, Options{}))
	if !strings.HasPrefix(got, "inlet  not ready\n  service orders-db: no channel to it: still connecting\n") {
		t.Errorf("printed:\n%s", got)
	}
}

// A section is printed alone, and says so when it is empty.
func TestPrintSections(t *testing.T) {
	s := mustParse(t, inletStatus)
	for _, name := range Sections() {
		got := ansi.Strip(printed(t, s, isReady, Options{Section: name, Streams: 10}))
		empty := "no " + name + "\n"
		switch name {
		case "registrations", "joins", "refusals":
			if got != empty {
				t.Errorf("%s of an inlet: %q, want %q", name, got, empty)
			}
		default:
			if got == empty || got == "" || strings.Contains(got, strings.ToUpper(name)+"\n") {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

// The roles that do not say which they are, of an earlier version.
func TestOlderProcesses(t *testing.T) {
	for text, want := range map[string]Text{
		`{"joins": []}`:         Relay,
		`{"registrations": []}`: Outlet,
		`{"registrations": [], "joins": [], "refusals": {"busy": 3}}`: Relay,
		`{"services": []}`: Inlet,
	} {
		if s := mustParse(t, text); s.Role != want || s.Now.IsZero() {
			t.Errorf("%s: role %s at %s, want %s now", text, s.Role, s.Now, want)
		}
	}
}

// hostile is a name as a peer could send it.
const hostile = "evil\x1b[2J\x1b]0;title\x07\n\r\u202eforged\u009b31m\x00"

// Whatever a process answers, what is printed holds nothing but text, line ends and
// this program's own colours, and no line is wider than the terminal.
func TestHostileTexts(t *testing.T) {
	quoted, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`"orders-db"`, string(quoted), `"open"`, string(quoted), `"hop 1 of 2 (tcp://relay-b:4000/x): connection refused"`, string(quoted),
		`{"role": "api"}`, fmt.Sprintf("{%s: %s}", quoted, quoted)).Replace(inletStatus)
	wantHarmless(t, printed(t, mustParse(t, text), &Readiness{Checks: []Check{}}, Options{Width: 60, Streams: 10}), 60)
	s := mustParse(t, fmt.Sprintf(`{"joins": [{"request": %s, "caller": %s, "target": %s}], "refusals": {%s: 1}}`, quoted, quoted, quoted, quoted))
	wantHarmless(t, printed(t, s, isReady, Options{Width: 60, Streams: 10}), 60)
}

func wantHarmless(t *testing.T, text string, width int) {
	t.Helper()
	plain := text
	for _, s := range []Style{Bold, Dim, Invert, Good, Warn, Bad} {
		plain = strings.ReplaceAll(plain, "\x1b["+string(s)+"m", "")
	}
	plain = strings.ReplaceAll(plain, "\x1b[m", "")
	for line := range strings.Lines(plain) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
			t.Errorf("a line could do something to a terminal: %q", line)
		}
		if n := ansi.StringWidth(line); n > width {
			t.Errorf("a line has %d columns of %d: %q", n, width, line)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(inletStatus), 80)
	f.Add([]byte(`{"joins":[{"caller":"a","since":"2026-11-26T11:59:00Z"}],"refusals":{"\u001b[2J":1}}`), 40)
	f.Add([]byte(`{"services":[{"service":"\u202e","replicas":{"list":[{"state":"aside"}]}}],"channels":[{"path":{"ping_seconds":1e308}}]}`), 200)
	f.Fuzz(func(t *testing.T, b []byte, width int) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		width = minWidth + int(uint(width)%200)
		wantHarmless(t, printed(t, s, isReady, Options{Width: width, Streams: 10}), width)
	})
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{-1: "0 B", 0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10240: "10 KiB", 1<<20 - 1: "1.0 MiB", 1<<20 - 512: "1.0 MiB", 1<<20 - 1024: "1023 KiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Hour: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 25 * time.Hour: "1d01h", 3*time.Hour + time.Minute: "3h01m"} {
		if got := Long(d); got != want {
			t.Errorf("Long(%v) = %q, want %q", d, got, want)
		}
	}
	for s, want := range map[float64]string{0: "", -1: "", 0.00021: "0.2 ms", 0.0123: "12 ms", 1.25: "1.2 s"} {
		if got := Brief(s); got != want {
			t.Errorf("Brief(%v) = %q, want %q", s, got, want)
		}
	}
}

// What is wrong with a route is said without the URL that stands beside it.
func TestWhy(t *testing.T) {
	for text, want := range map[Text]string{
		"hop 1 of 1 (tcp://a:1/x): dial tcp: refused":              "dial tcp: refused",
		"hop 2 of 3 (tcp://a:1/x): relay refuses (really): denied": "hop 2 of 3: relay refuses (really): denied",
		"hop 1 of 1": "hop 1 of 1", "": "", "other (x): y": "other (x): y", "hop on (x": "hop on (x",
	} {
		if got := Why(text); got != want {
			t.Errorf("Why(%q) = %q, want %q", text, got, want)
		}
	}
}

// Columns go where there is too little room, the least important first, and a row is
// never wider than the line.
func TestFit(t *testing.T) {
	cells := []string{"a-service-with-a-long-name", "peer", "10.0.0.7:51234", "1h00m", "10 MiB", "3 MiB"}
	last := len(streamColumns)
	for width := 120; width >= 30; width-- {
		shown, widths := Fit(streamColumns, width)
		if len(shown) > last {
			t.Errorf("%d columns fit into %d, and only %d into one more", len(shown), width, last)
		}
		last = len(shown)
		if row := Row(streamColumns, shown, widths, cells); ansi.StringWidth(row) > width {
			t.Errorf("a row of %d columns in %d: %q", ansi.StringWidth(row), width, row)
		}
	}
	if last != 3 {
		t.Errorf("%d columns are left of a narrow line, want those that stay", last)
	}
}

// serve runs an admin server that answers with what the funcs return.
func serve(t *testing.T, network, address string, answers map[string]func(w http.ResponseWriter, r *http.Request)) string {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, f := range answers {
		mux.HandleFunc("GET "+path, f)
	}
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: mux}}
	s.Start()
	t.Cleanup(s.Close)
	if network == "unix" {
		return "unix://" + address
	}
	return ln.Addr().String()
}

func saying(status int, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

// A process is asked at a loopback or a socket, for as many streams as are wanted.
func TestClient(t *testing.T) {
	for _, tt := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(t.TempDir(), "admin.sock")}} {
		var asked string
		admin := serve(t, tt[0], tt[1], map[string]func(http.ResponseWriter, *http.Request){
			"/status": func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.RawQuery + " " + r.Host
				_, _ = w.Write([]byte(inletStatus))
			},
			"/readyz": saying(http.StatusServiceUnavailable, `{"ready": false, "checks": [{"name": "process", "ready": false, "reason": "it \u001b stops"}]}`),
		})
		c := NewClient(admin)
		defer c.Close()
		s, err := c.Status(t.Context(), 5)
		if err != nil || s.Identifier != inletID || asked != "joins=5&streams=5 localhost" {
			t.Errorf("%s: Status = %v, %v; it was asked %q", tt[0], s, err, asked)
		}
		r, err := c.Ready(t.Context())
		if err != nil || r.Ready || len(r.Checks) != 1 || r.Checks[0].Reason != "it ? stops" {
			t.Errorf("%s: Ready = %+v, %v", tt[0], r, err)
		}
	}
}

// Who is no Culvert, says too much or does not answer is told from one that is not
// ready.
func TestClientAtStrangers(t *testing.T) {
	for name, tt := range map[string]struct {
		status, ready func(http.ResponseWriter, *http.Request)
		want          string
	}{
		"another server": {saying(http.StatusOK, "<html>welcome</html>"), saying(http.StatusOK, "ready\n"), "is that the admin address of a Culvert?"},
		"the metrics'":   {saying(http.StatusNotFound, "404 page not found\n"), saying(http.StatusNotFound, "{}"), "answers 404"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.com/", http.StatusFound)
		}, saying(http.StatusFound, "{}"), "answers 302"},
		"without end": {func(w http.ResponseWriter, _ *http.Request) {
			for b := bytes.Repeat([]byte(" "), 1<<20); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, saying(http.StatusOK, strings.Repeat(" ", maxReady+1)), "answers more than"},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(serve(t, "tcp", "127.0.0.1:0", map[string]func(http.ResponseWriter, *http.Request){"/status": tt.status, "/readyz": tt.ready}))
			defer c.Close()
			if _, err := c.Status(t.Context(), 1); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Status: %v, want %q", err, tt.want)
			}
			if _, err := c.Ready(t.Context()); err == nil {
				t.Error("Ready: no error")
			}
		})
	}
	c := NewClient("unix://" + filepath.Join(t.TempDir(), "nobody.sock"))
	defer c.Close()
	_, err := c.Status(context.Background(), 1)
	var none *UnreachableError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "does the process run") {
		t.Errorf("Status where nobody listens: %v", err)
	}
}

// One member of the answer is what it was, to the byte; others are named.
func TestSection(t *testing.T) {
	raw := json.RawMessage(inletStatus)
	if part, err := Section(raw, "streams_left_off"); err != nil || string(part) != "7" {
		t.Errorf("Section = %s, %v", part, err)
	}
	if _, err := Section(raw, "nothing"); err == nil || !strings.Contains(err.Error(), "one of channels, credential, identifier,") {
		t.Errorf("Section: %v", err)
	}
}
