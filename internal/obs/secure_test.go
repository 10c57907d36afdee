package obs

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock/socktest"
)

// testTLS returns a server's settings, and those of a client that trusts it alone.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, MinVersion: tls.VersionTLS13},
		&tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
}

// One address speaks TLS with those who begin with it, and plain HTTP with
// others; handlers see which.
func TestAdminSpeaksBoth(t *testing.T) {
	server, client := testTLS(t)
	s, _ := serve(t, newTestObs(t), Endpoints{Admin: "127.0.0.1:0", AdminTLS: server, More: map[string]http.Handler{
		"/secured": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS != nil) }),
	}})
	if a := get(t, s.AdminAddr(), "/secured"); a.status != 200 || a.body != "false" {
		t.Errorf("plain: %d %q, want false", a.status, a.body)
	}
	tr := &http.Transport{TLSClientConfig: client}
	defer tr.CloseIdleConnections()
	for range 2 { // the second on the same conn
		resp, err := (&http.Client{Transport: tr}).Get("https://" + s.AdminAddr().String() + "/secured")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "true" {
			t.Errorf("by TLS: %q, %v, want true", b, err)
		}
	}
	for _, junk := range []string{"\x16", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05hello", "\x15", "\x00"} {
		nc, err := net.Dial("tcp", s.AdminAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(nc, junk)
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, nc); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %q: %v, want an end", junk, err)
		}
		nc.Close()
	}
}

// A client that never ends its handshake is sent away like one that never ends its
// header.
func TestHandshakesAreBounded(t *testing.T) {
	server, _ := testTLS(t)
	withServer(t, func(t *testing.T, l *socktest.Listener) {
		nc := dial(l)
		defer nc.Close()
		if _, err := nc.Write([]byte("\x16\x03\x01\x00\xff")); err != nil {
			t.Fatal(err)
		}
		took, _ := untilEnd(nc)
		wantAbout(t, "the conn", took, headerTimeout)
	}, server)
}

// A name is listened at wherever it leads to: another user's server at its other
// address is an error, and not one of two that answer.
func TestListenAtEachAddress(t *testing.T) {
	other, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no ::1: %v", err)
	}
	defer other.Close()
	both := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	_, port, _ := net.SplitHostPort(other.Addr().String())
	if _, err := listenEach(t.Context(), both, port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port is taken at one of two addresses: %v, want that it is in use", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatalf("the other address was kept: %v", err)
	}
	free.Close()
	lns, err := listenEach(t.Context(), both, "0")
	if err != nil || len(lns) != 2 {
		t.Fatalf("%d listeners, %v, want 2", len(lns), err)
	}
	a, b := lns[0].Addr().(*net.TCPAddr), lns[1].Addr().(*net.TCPAddr)
	if a.Port != b.Port || a.IP.String() != "127.0.0.1" || b.IP.String() != "::1" {
		t.Errorf("listening at %s and %s, want one port of both", a, b)
	}
	for _, ln := range lns {
		ln.Close()
	}
	// An address that there is not nobody else can have.
	lns, err = listenEach(t.Context(), []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")}, "0")
	if err != nil || len(lns) != 1 {
		t.Fatalf("%d listeners, %v, want 1", len(lns), err)
	}
	lns[0].Close()
}
