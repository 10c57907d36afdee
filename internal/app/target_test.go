package app

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/policy"
)

// A toldTarget is what one was told before the client's bytes.
type toldTarget struct {
	header *proxyproto.Header
	first  string // of the client's bytes
}

// serveProxied runs an echo server that wants the PROXY protocol's header.
func serveProxied(t *testing.T) (config.Address, <-chan toldTarget) {
	t.Helper()
	told := make(chan toldTarget, 4)
	return serveTCP(t, func(nc *net.TCPConn) {
		r := bufio.NewReader(nc)
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Errorf("reading the header: %v", err)
			return
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Error(err)
		}
		told <- toldTarget{h, string(b)}
		_, _ = nc.Write(b)
		_, _ = io.Copy(nc, r)
	}), told
}

// A target is told who calls, before anything else: what is known of them, and no
// more than that.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		version int
		trusted bool
		direct  bool
		source  func(sys *system, client net.Addr) string
	}{
		{"v1 behind a relay", 1, false, false, nil},
		{"v2 behind a relay", 2, false, false, nil},
		{"v1 trusted", 1, true, false, func(_ *system, client net.Addr) string { return client.String() }},
		{"v2 trusted", 2, true, true, func(_ *system, client net.Addr) string { return client.String() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, told := serveProxied(t)
			change := func(c *config.Outlet) {
				s := &c.Services[0]
				s.Target, s.ProxyProtocol, s.TrustClientAddress = addr, tt.version, tt.trusted
			}
			var sys *system
			if tt.direct {
				sys, _ = startDirect(t, change, nil)
			} else {
				sys = startSystem(t, setup{outlet: change})
			}
			nc := dialTCP(t, sys.inlet.Addrs()[0])
			wantEcho(t, nc, "hello")
			got := <-told
			if got.first != "hello" || int(got.header.Version) != tt.version {
				t.Errorf("version %d before %q", got.header.Version, got.first)
			}
			switch {
			case tt.source == nil:
				if got.header.TransportProtocol != proxyproto.UNSPEC || got.header.SourceAddr != nil {
					t.Errorf("source %v, and nobody knows one", got.header.SourceAddr)
				}
			default:
				want := tt.source(sys, nc.LocalAddr())
				if source := got.header.SourceAddr.String(); source != want && !strings.HasPrefix(source, want+":") {
					t.Errorf("source %s, want %s", source, want)
				}
				if got.header.DestinationAddr.String() != addr.String() {
					t.Errorf("destination %v, want the target's own, %v", got.header.DestinationAddr, addr)
				}
			}
			if tt.version == 2 {
				wantTLVs(t, sys, got.header)
			}
		})
	}
}

func wantTLVs(t *testing.T, sys *system, h *proxyproto.Header) {
	t.Helper()
	list, err := h.TLVs()
	must(t, err)
	values := map[byte]string{}
	for _, v := range list {
		values[byte(v.Type)] = string(v.Value)
	}
	if values[0xE0] != sys.inlet.Identifier().String() || values[2] != "echo" || !strings.HasSuffix(values[5], "/3") {
		t.Errorf("the target is told %q, want the peer, the service and the stream", values)
	}
}

// targetCert makes a certificate for 127.0.0.1 that vouches for itself, and its file.
func targetCert(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// startTLS starts a system whose target speaks TLS, and does with each conn what
// handle says.
func startTLS(t *testing.T, change func(*config.OutletService), handle func(c *tls.Conn, nc *net.TCPConn)) *system {
	t.Helper()
	pair, file := targetCert(t)
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	target := serveTCP(t, func(nc *net.TCPConn) {
		c := tls.Server(nc, conf)
		if c.Handshake() == nil {
			handle(c, nc)
		}
	})
	return startSystem(t, setup{target: target, outlet: func(c *config.Outlet) {
		c.Services[0].TLS = &config.TargetTLS{CAFile: file}
		if change != nil {
			change(&c.Services[0])
		}
	}})
}

// Ends pass through TLS for themselves, and one that TLS has not said is none.
func TestTLSTarget(t *testing.T) {
	t.Parallel()
	t.Run("ends", func(t *testing.T) {
		t.Parallel()
		sys := startTLS(t, nil, func(c *tls.Conn, _ *net.TCPConn) {
			_, _ = io.Copy(c, c)
			_ = c.CloseWrite()
			_, _ = c.NetConn().Read(make([]byte, 1))
		})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		data := strings.Repeat("0123456789abcdef", 1<<16)
		go func() {
			_, _ = io.WriteString(nc, data)
			_ = nc.CloseWrite()
		}()
		if got, err := io.ReadAll(nc); err != nil || string(got) != data {
			t.Fatalf("echo of %d bytes: got %d, %v", len(data), len(got), err)
		}
		eventually(t, "both ends have ended well", func() bool {
			return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "ok") == 1 && metric(t, sys.outlet.obs, "culvert_outlet_streams_total", "echo", "ok") == 1
		})
	})
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		sys := startTLS(t, nil, func(c *tls.Conn, nc *net.TCPConn) {
			_, _ = io.CopyN(c, c, 5)
			_ = nc.CloseWrite() // a FIN, and no close_notify
			_, _ = io.Copy(io.Discard, c)
		})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		wantReset(t, nc)
		for side, log := range map[string]*logBuffer{"inlet": sys.inletLog, "outlet": sys.outletLog} {
			eventually(t, side+" says why", func() bool { return len(log.lines(t, map[string]string{"code": "target_tls", "service": "echo"})) == 1 })
		}
	})
	t.Run("aborted by the client", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		sys := startTLS(t, nil, func(c *tls.Conn, _ *net.TCPConn) {
			_, err := io.Copy(c, c)
			seen <- err
		})
		nc := sys.dial(t)
		wantEcho(t, nc, "hello")
		_ = nc.SetLinger(0)
		_ = nc.Close()
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target read %v, want a reset", err)
		}
	})
	t.Run("not verified", func(t *testing.T) {
		t.Parallel()
		_, other := targetCert(t)
		sys := startTLS(t, func(s *config.OutletService) { s.TLS.CAFile = other }, func(c *tls.Conn, _ *net.TCPConn) { _, _ = io.Copy(c, c) })
		wantRefused(t, sys.inlet.Addrs()[0])
		eventually(t, "the outlet says which setting is to be changed", func() bool {
			lines := sys.outletLog.lines(t, map[string]string{"msg": "stream refused", "code": "target_tls"})
			return len(lines) == 1 && strings.Contains(lines[0]["reason"].(string), "tls.ca_file")
		})
		eventually(t, "the inlet hears that, and not what is behind it", func() bool {
			lines := sys.inletLog.lines(t, map[string]string{"msg": "stream refused", "code": "target_tls"})
			return len(lines) == 1 && !strings.Contains(lines[0]["reason"].(string), "x509")
		})
	})
}

// Settings of TLS that cannot be taken are faults of their keys.
func TestTLSTargetFaults(t *testing.T) {
	key, id := newIdentity(t)
	o, _ := newObs(t, "outlet")
	_, err := NewOutlet(&config.Outlet{
		Common: config.Common{Identity: key}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "db", Target: local(1), Allow: policy.List(id), TLS: &config.TargetTLS{CAFile: "/no/such/file"}}},
	}, o)
	if err == nil || !strings.HasPrefix(err.Error(), "services[0].tls.ca_file: ") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a fault of services[0].tls.ca_file", err)
	}
}
