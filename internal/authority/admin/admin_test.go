package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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
	file := filepath.Join(dir, "token")
	token, err := NewToken(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadToken(file)
	if err != nil || !again.Equal(token) {
		t.Fatalf("the token was read as another: %v", err)
	}
	srv := httptest.NewServer(Handler(a, token))
	t.Cleanup(srv.Close)
	return a, NewClient(strings.TrimPrefix(srv.URL, "http://"), token), srv
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
	a, c, srv := start(t)
	number, _ := a.Number()
	token := string(c.token.Reveal())
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
		req, err := http.NewRequestWithContext(t.Context(), tt.method, srv.URL+Prefix+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		if tt.contentType != "" {
			req.Header.Set("Content-Type", tt.contentType)
		}
		resp, err := srv.Client().Do(req)
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
	h := Handler(a, credential.Secret{})
	w := httptest.NewRecorder()
	req := httptest.NewRequest("GET", Prefix+"tickets", nil)
	req.Header.Set("Authorization", "Bearer ")
	if h.ServeHTTP(w, req); w.Code != 401 {
		t.Errorf("an empty token lets in: %d", w.Code)
	}
}

// A backup that breaks off is an error at the client.
func TestBackupBreaksOff(t *testing.T) {
	a, c, _ := start(t)
	srv := httptest.NewServer(Handler(failing{a}, c.token))
	defer srv.Close()
	if err := NewClient(strings.TrimPrefix(srv.URL, "http://"), c.token).Backup(t.Context(), io.Discard); err == nil {
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
	if _, err := ReadToken(filepath.Join(dir, "none")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no token: %v", err)
	}
	_, c, srv := start(t)
	srv.Close()
	if _, err := c.Tickets(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := NewClient("unix://"+filepath.Join(dir, "none.sock"), c.token).Tickets(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	for _, text := range []string{"", "short\n", strings.Repeat("0", 64), strings.Repeat("0", 100)} {
		file := filepath.Join(dir, "token")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadToken(file); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("token %q: %v", text, err)
		}
	}
}
