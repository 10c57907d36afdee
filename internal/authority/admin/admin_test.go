package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves an authority on a store of its own, and returns its client.
func start(t *testing.T) (*authority.Authority, *Client, *httptest.Server) {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store, err := authority.OpenStore(filepath.Join(dir, "authority.db"), id.Identifier())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a, err := authority.New(store, authority.Config{Identity: id, Routes: []string{"tcp://relay.example:4000/" + id.Identifier().String()}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "access")
	access, err := NewAccess(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadAccess(file)
	if err != nil || !again.token.Equal(access.token) || !again.leaf.Equal(access.leaf) {
		t.Fatalf("the access was read as another: %v", err)
	}
	srv := serve(t, a, access)
	return a, NewClient(srv.Listener.Addr().String(), again), srv
}

// serve serves s over TLS, with that access.
func serve(t *testing.T, s Service, a *Access) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(Handler(s, a))
	srv.TLS = a.ServerTLS()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// What a client hears is what the authority itself says.
func TestClientIsTheAuthority(t *testing.T) {
	a, c, _ := start(t)
	ctx := t.Context()
	ticket, info, err := c.CreateTicket(ctx, authority.TicketRequest{Attributes: credential.Attributes{"role": "a p=i\"ü"}, Uses: 2, ExpiresIn: 90 * time.Second})
	if err != nil || info.Uses != 2 || info.Expires.Sub(info.Created) != 90*time.Second || ticket.Secret.Len() == 0 || ticket.ID != info.ID {
		t.Fatalf("%s %+v, %v", ticket, info, err)
	}
	same := func(name string, ask func(o authority.Operator) (any, error)) {
		t.Helper()
		got, err := ask(c)
		want, err2 := ask(a)
		if !reflect.DeepEqual(got, want) || errors.Join(err, err2) != nil {
			t.Errorf("%s: %+v, want %+v: %v", name, got, want, errors.Join(err, err2))
		}
	}
	same("tickets", func(o authority.Operator) (any, error) { return o.Tickets(ctx) })
	if err := c.RevokeTicket(ctx, ticket.ID); err != nil {
		t.Error(err)
	}
	same("a revoked ticket", func(o authority.Operator) (any, error) { return o.Tickets(ctx) })
	same("members", func(o authority.Operator) (any, error) { return o.Members(ctx, identity.Identifier{}, 0) })
	r, err := c.Revoke(ctx, authority.Revocation{Identifiers: []identity.Identifier{{1}}, Reason: "lost"})
	if number, _ := a.Number(); err != nil || r != (authority.Revoked{Number: number, Added: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	var b bytes.Buffer
	if err := c.Backup(ctx, &b); err != nil || b.Len() < 8<<10 {
		t.Errorf("a backup of %d bytes, %v", b.Len(), err)
	}

	_, _, err = c.CreateTicket(ctx, authority.TicketRequest{Uses: -1})
	if err == nil || !strings.Contains(err.Error(), "-1 uses") {
		t.Errorf("%v, want what the authority says", err)
	}
	if _, err := c.Revoke(ctx, authority.Revocation{Serials: []credential.Serial{{1}}}); err == nil || !strings.Contains(err.Error(), "could still hold") {
		t.Errorf("%v, want what the authority says", err)
	}
	if err := c.RevokeTicket(ctx, credential.TicketID{1}); err == nil || !strings.Contains(err.Error(), "no such ticket") {
		t.Errorf("%v, want what the authority says", err)
	}
}

// Without the token nothing is answered, and what a browser could be made to send
// changes nothing.
func TestStrangersGetNothing(t *testing.T) {
	a, c, _ := start(t)
	number, _ := a.Number()
	token := string(c.access.token.Reveal())
	for name, tt := range map[string]struct {
		method, path, auth, contentType, body string
		want                                  int
	}{
		"no token":            {"GET", "tickets", "", "", "", 401},
		"another token":       {"GET", "tickets", "Bearer " + strings.Repeat("0", 64), "", "", 401},
		"its beginning":       {"GET", "tickets", "Bearer " + token[:63], "", "", 401},
		"another scheme":      {"GET", "members", "Basic " + token, "", "", 401},
		"backup, no token":    {"GET", "backup", "", "", "", 401},
		"form":                {"POST", "revocations", "Bearer " + token, "application/x-www-form-urlencoded", `{"identifiers":[]}`, 415},
		"plain text":          {"POST", "tickets", "Bearer " + token, "text/plain", `{}`, 415},
		"no type":             {"POST", "tickets", "Bearer " + token, "", `{}`, 415},
		"unknown field":       {"POST", "tickets", "Bearer " + token, "application/json", `{"use":1}`, 400},
		"two values":          {"POST", "tickets", "Bearer " + token, "application/json", `{}{}`, 400},
		"cut":                 {"POST", "tickets", "Bearer " + token, "application/json", `{"uses":`, 400},
		"too long":            {"POST", "tickets", "Bearer " + token, "application/json", `{"uses":` + strings.Repeat(" ", maxBody) + "1}", 413},
		"GET changes nothing": {"GET", "revocations", "Bearer " + token, "", "", 405},
		"bad id":              {"DELETE", "tickets/xyz", "Bearer " + token, "", "", 400},
		"bad identifier":      {"GET", "members?after=xyz", "Bearer " + token, "", "", 400},
		"unknown":             {"GET", "nothing", "Bearer " + token, "", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+serverName+Prefix+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		if tt.contentType != "" {
			req.Header.Set("Content-Type", tt.contentType)
		}
		resp, err := c.http.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want || strings.Contains(string(b), token) {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, b, tt.want)
		}
	}
	if n, _ := a.Number(); n != number {
		t.Errorf("list %d after %d: somebody has changed something", n, number)
	}
	if list, err := a.Tickets(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%d tickets, %v", len(list), err)
	}
	for _, tt := range []struct {
		access *Access
		url    string
		auth   string
		want   int
	}{
		{&Access{}, "https://localhost", "Bearer ", 401},
		{c.access, "http://localhost", "Bearer " + token, 426},
		{c.access, "http://localhost", "", 426},
	} {
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", tt.url+Prefix+"tickets", nil)
		req.Header.Set("Authorization", tt.auth)
		if Handler(a, tt.access).ServeHTTP(w, req); w.Code != tt.want {
			t.Errorf("%s with a token of %d bytes: %d, want %d", tt.url, tt.access.token.Len(), w.Code, tt.want)
		}
	}
	plain := httptest.NewServer(Handler(a, c.access))
	defer plain.Close()
	resp, err := plain.Client().Get(plain.URL + Prefix + "tickets")
	if err != nil || resp.StatusCode != 426 {
		t.Errorf("in plain: %v, %v, want 426", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

// A backup that breaks off is an error at the client.
func TestBackupBreaksOff(t *testing.T) {
	a, _, _ := start(t)
	access, err := NewAccess(filepath.Join(t.TempDir(), "access"))
	if err != nil {
		t.Fatal(err)
	}
	srv := serve(t, failing{a}, access)
	if err := NewClient(srv.Listener.Addr().String(), access).Backup(t.Context(), io.Discard); err == nil {
		t.Error("half a backup was taken for a whole one")
	}
}

// failing is an authority whose backups break off.
type failing struct{ *authority.Authority }

func (failing) Backup(_ context.Context, w io.Writer) error {
	_, _ = w.Write(make([]byte, 64<<10))
	return errors.New("no space left")
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadAccess(filepath.Join(dir, "none")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no token: %v", err)
	}
	_, c, srv := start(t)
	srv.Close()
	if _, err := c.Tickets(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := NewClient("unix://"+filepath.Join(dir, "none.sock"), c.access).Tickets(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	whole := string(accessText(t))
	for _, text := range []string{
		"", "short\n", strings.Repeat("0", 64), strings.Repeat("0", 100), whole[:65], whole[:len(whole)/2], whole + "x", whole + whole[65:],
		"\n" + whole, whole[:65] + strings.Replace(whole[65:], "CERTIFICATE", "PRIVATE KEY", 2), whole + strings.Repeat("\n", maxAccess),
	} {
		file := filepath.Join(dir, "access")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAccess(file); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("access %q: %v", text, err)
		} else if strings.Contains(err.Error(), whole[:16]) {
			t.Errorf("%v tells the token", err)
		}
	}
}

// accessText returns what the file of a new access has.
func accessText(t testing.TB) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "access")
	if _, err := NewAccess(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is read is what would be written, and nothing else.
func FuzzAccess(f *testing.F) {
	f.Add(accessText(f))
	f.Add([]byte(strings.Repeat("0", 64) + "\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAccess(b)
		if err != nil {
			return
		}
		if a.token.Len() != tokenLen || a.leaf == nil {
			t.Errorf("%q is read as %+v", b, a)
		}
	})
}

// An impostor at the admin address, of whatever kind, sees neither the token nor
// what is asked, and one that carries on everything to the authority no more.
func TestImpostorsLearnNothing(t *testing.T) {
	a, c, srv := start(t)
	token := string(c.access.token.Reveal())
	other, err := newAccess()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		serve func(nc net.Conn)
		fails bool
	}{
		"plain HTTP": {func(nc net.Conn) { _, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n") }, true},
		"its own certificate": {func(nc net.Conn) {
			s := tls.Server(nc, other.ServerTLS())
			_ = s.Handshake()
			_, _ = s.Read(make([]byte, 1<<10))
		}, true},
		"the same certificate without its key": {func(nc net.Conn) {
			cfg := other.ServerTLS()
			cfg.Certificates[0].Certificate = [][]byte{c.access.leaf.Raw}
			cfg.Certificates[0].Leaf = nil
			_ = tls.Server(nc, cfg).Handshake()
		}, true},
		"closes": {func(net.Conn) {}, true},
		"carries on": {func(nc net.Conn) {
			to, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				return
			}
			defer to.Close()
			go func() { _, _ = io.Copy(to, nc) }()
			_, _ = io.Copy(nc, to)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var seen bytes.Buffer
			done := make(chan struct{})
			go func() {
				defer close(done)
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				tt.serve(&tappedConn{nc, &mu, &seen})
			}()
			ticket, _, err := NewClient(ln.Addr().String(), c.access).CreateTicket(t.Context(), authority.TicketRequest{Attributes: credential.Attributes{"role": "attribute-of-mine"}})
			_ = ln.Close()
			<-done
			if tt.fails != errors.Is(err, ErrImpostor) || tt.fails != (err != nil) {
				t.Errorf("error %v, want that it is an impostor: %v", err, tt.fails)
			}
			secrets := []string{token, "attribute-of-mine", "Bearer", Prefix}
			if err == nil {
				text, err := ticket.Encode()
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, text)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, secret := range secrets {
				if strings.Contains(seen.String(), secret) {
					t.Errorf("the impostor has seen %.10s…", secret)
				}
			}
		})
	}
	if list, err := a.Tickets(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d tickets, %v: want that of who carried on", len(list), err)
	}
}

// A tappedConn keeps what passes.
type tappedConn struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (c *tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(b[:n])
	return n, err
}

func (c *tappedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.seen.Write(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}
