package webhook

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// issue makes what is missing in a folder.
func issue(t *testing.T, dir string, order Order, now time.Time) *Issued {
	t.Helper()
	if order.Names == nil {
		order.Names = []string{serverName}
	}
	issued, err := Issue(dir, order, now)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// verify reports whether a client that trusts the folder's authorities takes its
// certificate under a name.
func verify(t *testing.T, dir, name string, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := readPEM(filepath.Join(dir, AuthorityFile))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no authority: %v", err)
	}
	_, err = readServer(dir).Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

func TestIssue(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	if got := issue(t, dir, Order{}, now); !got.Authority || !got.Server {
		t.Errorf("the first time: %+v", got)
	}
	if err := verify(t, dir, serverName, now); err != nil {
		t.Error(err)
	}
	if err := verify(t, dir, "elsewhere.culvert.svc", now); err == nil {
		t.Error("holds for another name, too")
	}
	for _, name := range []string{AuthorityKeyFile, ServerKeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, tt := range []struct {
		what              string
		after             time.Duration
		order             Order
		authority, server bool
	}{
		{"at once", 0, Order{}, false, false},
		{"when half is left", serverLife / 2, Order{}, false, false},
		{"when a quarter is left", serverLife * 3 / 4, Order{}, false, true},
		{"when it is to be", serverLife * 3 / 4, Order{Renew: true}, false, true},
		{"for another name", serverLife * 3 / 4, Order{Names: []string{"b.culvert.svc"}}, true, true},
		{"by another authority", serverLife * 3 / 4, Order{Names: []string{"b.culvert.svc"}, NewAuthority: true}, true, true},
		{"when the authority ends", serverLife*3/4 + authorityLife - serverLife, Order{Names: []string{"b.culvert.svc"}}, true, true},
	} {
		got := issue(t, dir, tt.order, now.Add(tt.after))
		if got.Authority != tt.authority || got.Server != tt.server {
			t.Errorf("%s: %+v, want a new authority: %v, a new certificate: %v", tt.what, got, tt.authority, tt.server)
		}
	}
	later := now.Add(serverLife*3/4 + authorityLife - serverLife)
	if err := verify(t, dir, "b.culvert.svc", later); err != nil {
		t.Error(err)
	}
}

// Whose authority is a stranger's, or broken, is told, and nothing is replaced.
func TestIssueRefuses(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, Order{}, time.Now())
	if err := os.WriteFile(filepath.Join(dir, AuthorityKeyFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, ServerFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, Order{Names: []string{serverName}}, time.Now()); err == nil {
		t.Error("a broken key was taken")
	}
	if after, err := os.ReadFile(filepath.Join(dir, ServerFile)); err != nil || string(after) != string(before) {
		t.Errorf("the certificate was replaced: %v", err)
	}
	if _, err := Issue(dir, Order{}, time.Now()); err == nil {
		t.Error("a certificate without a name was made")
	}
}

// Any file may lie there.
func FuzzParsePEM(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = parseCertificates(text) // must not panic
		_, _ = parseKey(text)
	})
}
