package target

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/pires/go-proxyproto"

	"github.com/culvert-net/culvert/internal/sock"
)

// serveTLS runs a TLS server until the test's end, and returns its address.
func serveTLS(t *testing.T, conf *tls.Config, handle func(c *tls.Conn, nc *net.TCPConn)) string {
	t.Helper()
	return serve(t, func(nc *net.TCPConn) {
		c := tls.Server(nc, conf)
		if err := c.Handshake(); err == nil {
			handle(c, nc)
		}
	})
}

func serverConfig(pair tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// Each direction ends for itself, by close_notify.
func TestTLSEnds(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			ca := newRoot(t)
			pair, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
			conf := serverConfig(pair)
			conf.MaxVersion = version
			heard := make(chan string, 1)
			addr := serveTLS(t, conf, func(c *tls.Conn, _ *net.TCPConn) {
				b, err := io.ReadAll(c)
				if err != nil {
					heard <- err.Error()
					return
				}
				heard <- string(b)
				_, _ = c.Write([]byte("the answer"))
				_ = c.CloseWrite()
				_, _ = c.NetConn().Read(make([]byte, 1)) // the FIN behind close_notify
			})
			c, err := dial(t, Config{Address: addr, TLS: &TLS{CAFile: ca.file}}, nil)
			must(t, err)
			_, err = c.Write([]byte("a question"))
			must(t, err)
			must(t, c.CloseWrite())
			if got := <-heard; got != "a question" {
				t.Errorf("the target heard %q", got)
			}
			if b, err := io.ReadAll(c); string(b) != "the answer" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			if err := sock.EndOrReset(c); err != nil {
				t.Errorf("an end by close_notify is taken for %v", err)
			}
		})
	}
}

// A target that goes without close_notify has not said that this was all: between
// two records, in the middle of one, or by a reset.
func TestTLSTruncated(t *testing.T) {
	ca := newRoot(t)
	pair, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	for _, tt := range []struct {
		name string
		end  func(nc *net.TCPConn)
		want error
	}{
		{"between records", func(nc *net.TCPConn) { _ = nc.CloseWrite() }, ErrTruncated},
		{"in a record", func(nc *net.TCPConn) {
			_, _ = nc.Write([]byte{23, 3, 3, 1, 0, 'x'})
			_ = nc.CloseWrite()
		}, ErrTruncated},
		{"reset", func(nc *net.TCPConn) { _ = nc.SetLinger(0); _ = nc.Close() }, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			release := make(chan struct{})
			addr := serveTLS(t, serverConfig(pair), func(c *tls.Conn, nc *net.TCPConn) {
				_, _ = c.Write([]byte("half of "))
				_, _ = c.Read(make([]byte, 1)) // it has arrived
				tt.end(nc)
				<-release
			})
			defer close(release)
			c, err := dial(t, Config{Address: addr, TLS: &TLS{CAFile: ca.file}}, nil)
			must(t, err)
			got := make([]byte, 8)
			_, err = io.ReadFull(c, got)
			must(t, err)
			_, err = c.Write([]byte("!"))
			must(t, err)
			b, err := io.ReadAll(c)
			var oe *net.OpError
			if len(b) != 0 || !errors.Is(err, tt.want) || !errors.As(err, &oe) || oe.Addr.String() != addr {
				t.Errorf("read %q and %v, want the target's %v", b, err, tt.want)
			}
		})
	}
}

// An abort is one to the target, too: no close_notify, and a reset.
func TestTLSAbort(t *testing.T) {
	ca := newRoot(t)
	pair, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	for name, end := range map[string]func(sock.Conn){
		"ResetClose": func(c sock.Conn) { _ = sock.ResetClose(c) },
		"Close":      func(c sock.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan error, 1)
			addr := serveTLS(t, serverConfig(pair), func(c *tls.Conn, _ *net.TCPConn) {
				_, err := io.ReadAll(c)
				heard <- err
			})
			c, err := dial(t, Config{Address: addr, TLS: &TLS{CAFile: ca.file}}, nil)
			must(t, err)
			_, err = c.Write([]byte("half of it"))
			must(t, err)
			end(c)
			if err := <-heard; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target heard %v, want a reset", err)
			}
		})
	}
}

// A quiet conn holds no buffer, whatever has come before, and every byte of what
// comes is read, in pieces that are no records.
func TestTLSHoldsNoBuffer(t *testing.T) {
	ca := newRoot(t)
	pair, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	const size = 300 << 10
	addr := serveTLS(t, serverConfig(pair), func(c *tls.Conn, _ *net.TCPConn) {
		_, _ = c.Write(make([]byte, size))
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write([]byte("later"))
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := dial(t, Config{Address: addr, TLS: &TLS{CAFile: ca.file}}, nil)
	must(t, err)
	var mu sync.Mutex
	out := 0
	get := func() []byte { mu.Lock(); defer mu.Unlock(); out++; return make([]byte, 1000) }
	put := func([]byte) { mu.Lock(); defer mu.Unlock(); out-- }
	rr := c.(sock.ReadyReader)
	for total := 0; total < size; {
		buf, n, err := rr.ReadReady(get, put)
		must(t, err)
		put(buf)
		total += n
	}
	read := make(chan string, 1)
	go func() {
		buf, n, err := rr.ReadReady(get, put)
		if err != nil {
			read <- err.Error()
			return
		}
		read <- string(buf[:n])
	}()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		held := out
		mu.Unlock()
		if held == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d buffers are held while nothing comes", held)
		}
	}
	_, err = c.Write([]byte("!"))
	must(t, err)
	if got := <-read; got != "later" {
		t.Errorf("read %q", got)
	}
	if _, n, err := rr.ReadReady(get, put); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// What cannot be verified is refused, and the error says which setting would help.
func TestTLSVerifies(t *testing.T) {
	ca, other := newRoot(t), newRoot(t)
	good, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	named, _, _ := ca.issue("db.internal", time.Now().Add(time.Hour))
	expired, _, _ := ca.issue("127.0.0.1", time.Now().Add(-time.Hour))
	closeAll := func(c *tls.Conn, _ *net.TCPConn) { _ = c.Close() }
	asking := serverConfig(good)
	asking.ClientAuth, asking.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
	old := serverConfig(good)
	old.MaxVersion = tls.VersionTLS12
	for _, tt := range []struct {
		name, addr string
		tls        TLS
		want       string
	}{
		{"system's roots", serveTLS(t, serverConfig(good), closeAll), TLS{}, "tls.ca_file"},
		{"another root", serveTLS(t, serverConfig(good), closeAll), TLS{CAFile: other.file}, "tls.ca_file"},
		{"another name", serveTLS(t, serverConfig(named), closeAll), TLS{CAFile: ca.file}, "tls.server_name"},
		{"expired", serveTLS(t, serverConfig(expired), closeAll), TLS{CAFile: ca.file}, "another certificate"},
		{"asks for a certificate", serveTLS(t, asking, closeAll), TLS{CAFile: ca.file}, "tls.cert_file"},
		{"too old", serveTLS(t, old, closeAll), TLS{CAFile: ca.file, MinVersion: tls.VersionTLS13}, "protocol version"},
		{"no TLS", serve(t, func(nc *net.TCPConn) { _, _ = nc.Write([]byte("220 smtp.example ESMTP\r\n")) }), TLS{CAFile: ca.file}, "tcp://HOST:PORT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dial(t, Config{Address: tt.addr, TLS: &tt.tls}, nil)
			var te *TLSError
			if !errors.As(err, &te) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error of TLS with %q", err, tt.want)
			}
		})
	}
	addr := serveTLS(t, serverConfig(named), closeAll)
	if _, err := dial(t, Config{Address: addr, TLS: &TLS{CAFile: ca.file, ServerName: "db.internal"}}, nil); err != nil {
		t.Errorf("by its name: %v", err)
	}
}

// Files count from the next connection on; what cannot be taken changes nothing, and
// is told.
func TestTLSFilesChange(t *testing.T) {
	ca, other := newRoot(t), newRoot(t)
	first, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	second, _, _ := other.issue("127.0.0.1", time.Now().Add(time.Hour))
	shown := make(chan string, 8)
	var mu sync.Mutex
	pair := first
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		return &pair, nil
	}, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		c, err := x509.ParseCertificate(raw[0])
		if err == nil {
			shown <- c.DNSNames[0]
		}
		return err
	}}
	addr := serveTLS(t, conf, func(c *tls.Conn, _ *net.TCPConn) { _, _ = c.Write([]byte("!")); _ = c.Close() })
	_, certFile, keyFile := ca.issue("before", time.Now().Add(time.Hour))
	var stale []error
	target, err := New(&Config{Network: "tcp", Address: addr, TLS: &TLS{CAFile: ca.file, CertFile: certFile, KeyFile: keyFile}, Stale: func(err error) { stale = append(stale, err) }})
	must(t, err)
	want := func(name string) {
		t.Helper()
		var d net.Dialer
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := target.Dial(ctx, d.DialContext, nil)
		must(t, err)
		defer c.Close()
		_, err = c.Read(make([]byte, 1)) // then the target has verified what it was shown
		must(t, err)
		if got := <-shown; got != name {
			t.Errorf("the target was shown %q, want %q", got, name)
		}
	}
	want("before")

	_, newCert, newKey := ca.issue("after", time.Now().Add(time.Hour))
	must(t, os.Rename(newCert, certFile)) // and the key not yet
	want("before")
	if len(stale) != 1 || !strings.Contains(stale[0].Error(), "tls.cert_file") || strings.Contains(stale[0].Error(), "BEGIN") {
		t.Errorf("told %v, want one word about tls.cert_file", stale)
	}
	must(t, os.Rename(newKey, keyFile))
	want("after")

	mu.Lock()
	pair = second
	mu.Unlock()
	must(t, os.Rename(other.file, ca.file))
	want("after")
	must(t, os.Remove(ca.file))
	want("after")
	if len(stale) != 2 || !errors.Is(stale[1], os.ErrNotExist) {
		t.Errorf("told %v, want that the file is gone", stale)
	}
	want("after")
	if len(stale) != 2 {
		t.Errorf("told %d times of what was known", len(stale))
	}
}

// A file that cannot be taken at the start is the setting's fault.
func TestTLSSettings(t *testing.T) {
	ca := newRoot(t)
	_, certFile, keyFile := ca.issue("x", time.Now().Add(time.Hour))
	_, _, otherKey := ca.issue("x", time.Now().Add(time.Hour))
	for _, tt := range []struct {
		tls TLS
		key string
	}{
		{TLS{CAFile: "/no/such/file"}, "tls.ca_file"},
		{TLS{CAFile: keyFile}, "tls.ca_file"},
		{TLS{CAFile: t.TempDir()}, "tls.ca_file"},
		{TLS{CertFile: "/no/such/file", KeyFile: keyFile}, "tls.cert_file"},
		{TLS{CertFile: certFile, KeyFile: "/no/such/file"}, "tls.key_file"},
		{TLS{CertFile: certFile, KeyFile: otherKey}, "tls.cert_file"},
	} {
		_, err := New(&Config{Network: "tcp", Address: "a:1", TLS: &tt.tls})
		var se *SettingError
		if !errors.As(err, &se) || se.Key != tt.key {
			t.Errorf("%+v: %v, want a fault of %s", tt.tls, err, tt.key)
		}
	}
}

// The header comes before TLS, and in the dial's time.
func TestHeaderBeforeTLS(t *testing.T) {
	ca := newRoot(t)
	pair, _, _ := ca.issue("127.0.0.1", time.Now().Add(time.Hour))
	conf := serverConfig(pair)
	from := make(chan string, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	pl := &proxyproto.Listener{Listener: ln, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
	var wg sync.WaitGroup
	wg.Go(func() {
		nc, err := pl.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		c := tls.Server(nc, conf)
		if c.Handshake() == nil {
			from <- nc.RemoteAddr().String()
			_ = c.Close()
		}
	})
	defer wg.Wait()
	defer pl.Close()
	_, err = dial(t, Config{Address: ln.Addr().String(), TLS: &TLS{CAFile: ca.file}, ProxyProtocol: 2}, &Caller{Address: ParseClient("192.0.2.7:4242"), Service: "db"})
	must(t, err)
	if got := <-from; got != "192.0.2.7:4242" {
		t.Errorf("the target took %q for the source", got)
	}
}

// A target that says nothing is given up when the time for dialling is over.
func TestDialEnds(t *testing.T) {
	ca := newRoot(t)
	release := make(chan struct{})
	addr := serve(t, func(*net.TCPConn) { <-release })
	defer close(release)
	target, err := New(&Config{Network: "tcp", Address: addr, TLS: &TLS{CAFile: ca.file}})
	must(t, err)
	cause := errors.New("nobody waits any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	dialled := func() {}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) { // the time is over afterwards, not meanwhile
		nc, err := new(net.Dialer).DialContext(context.WithoutCancel(ctx), network, address)
		dialled()
		return nc, err
	}
	dialled = func() { cancel(cause) }
	if _, err := target.Dial(ctx, dial, nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the context's cause", err)
	}
	dialled = func() {}
	timed, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := target.Dial(timed, dial, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// What a target's certificate says goes into logs: it is printable there, and short.
func TestTLSErrorOfAnyCertificate(t *testing.T) {
	names := make([]string, 90)
	for i := range names {
		names[i] = strings.Repeat("x", 500) + "\x1b]0;gone\a\n\x7f"
	}
	err := (&TLSError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: names}, Host: "db.internal"}}).Error()
	if strings.ContainsFunc(err, func(r rune) bool { return !unicode.IsPrint(r) }) || len(err) > 2000 || !strings.Contains(err, "tls.server_name") {
		t.Errorf("an error of %d bytes: %.300q", len(err), err)
	}
}
