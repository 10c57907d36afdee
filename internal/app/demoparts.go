package app

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/pump"
)

// maxTapped bounds what a tap remembers of each direction.
const maxTapped = 1 << 20

// A recorder keeps the beginning of what passes through a tap one way.
type recorder struct {
	mu  sync.Mutex
	buf []byte
}

func (r *recorder) add(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(r.buf, b[:min(len(b), maxTapped-len(r.buf))]...)
}

func (r *recorder) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.buf)
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.buf)
}

// A tap forwards TCP and keeps a copy: the demo puts it before the relay, to
// show what the relay gets to see.
type tap struct {
	up, down recorder // to the relay, and from it
	ln       net.Listener
	stopAll  func()
	running  sync.WaitGroup
}

// startTap listens at a free port and forwards to the target until stop.
func startTap(ctx context.Context, target string) (*tap, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &tap{ln: ln}
	t.stopAll = func() {
		cancel()
		_ = ln.Close() // nothing was written to it
	}
	t.running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.running.Go(func() { t.forward(ctx, nc, target) })
		}
	})
	return t, nil
}

func (t *tap) addr() net.Addr { return t.ln.Addr() }

func (t *tap) stop() error {
	t.stopAll()
	t.running.Wait()
	return nil
}

func (t *tap) forward(ctx context.Context, nc net.Conn, target string) {
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		_ = nc.Close() // the inlet tries again
		return
	}
	pump.Both(ctx, &tapped{nc.(*net.TCPConn), t}, far.(*net.TCPConn))
}

// A tapped conn is the inlet's side of a tap.
type tapped struct {
	nc *net.TCPConn
	t  *tap
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.nc.Read(b)
	c.t.up.add(b[:n])
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	n, err := c.nc.Write(b)
	c.t.down.add(b[:n])
	return n, err
}

func (c *tapped) CloseWrite() error { return c.nc.CloseWrite() }
func (c *tapped) Close() error      { return c.nc.Close() }

// A demoHTTP is the service behind the demo's outlet.
type demoHTTP struct {
	ln     net.Listener
	server *http.Server
	done   chan error

	mu   sync.Mutex
	last []byte // the last request, as it came
}

func startDemoHTTP(ctx context.Context) (*demoHTTP, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &demoHTTP{ln: ln, done: make(chan error, 1)}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute}
	go func() { s.done <- s.server.Serve(ln) }()
	return s, nil
}

func (s *demoHTTP) addr() net.Addr { return s.ln.Addr() }

func (s *demoHTTP) stop() error {
	err := s.server.Close()
	if serveErr := <-s.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

func (s *demoHTTP) lastRequest() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// ServeHTTP says hello to a GET and returns what is posted.
func (s *demoHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxTapped)
	dump, err := httputil.DumpRequest(r, true)
	if err != nil {
		http.Error(w, "at most 1 MiB can be echoed", http.StatusRequestEntityTooLarge)
		return
	}
	s.mu.Lock()
	s.last = dump
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodPost {
		_, _ = io.Copy(w, r.Body) // a client that has gone needs no answer
		return
	}
	fmt.Fprintf(w, "Hello from the service behind the outlet.\nThis is the request that came to it:\n\n%s", dump) //nolint:gosec // no browser takes it for HTML
}

// report puts what a request has shown into words.
func (d *demo) report(r *demoResult) []byte {
	var b bytes.Buffer
	url := "http://" + d.inlet.Addrs()[0].String() + "/"
	fmt.Fprintf(&b, "Culvert: an inlet, a relay, an outlet and an HTTP service, all in this process.\n\n")
	fmt.Fprintf(&b, "  client --> inlet           ==> relay           ==> outlet --> service\n")
	fmt.Fprintf(&b, "             %-15s     %-15s            %s\n\n", d.inlet.Addrs()[0], d.relay.Addrs()[0], d.service.addr())
	fmt.Fprintf(&b, "1. The client sent this to the inlet as plaintext:\n\n%s\n", indent(string(r.sent)))
	fmt.Fprintf(&b, "2. The relay passed this on, ciphertext of which it has no key (the first of %d bytes):\n\n%s\n", len(r.relayed), indent(hex.Dump(r.relayed[:min(len(r.relayed), 64)])))
	fmt.Fprintf(&b, "   Searched all %d bytes, both ways, for %q: not found.\n\n", r.searched, r.secret)
	fmt.Fprintf(&b, "3. The service got this from the outlet as plaintext:\n\n%s\n", indent(string(r.got)))
	fmt.Fprintf(&b, "Try it yourself:\n\n")
	fmt.Fprintf(&b, "     curl %s\n", url)
	fmt.Fprintf(&b, "     curl -d 'any text' %s\n\n", url)
	for _, p := range []struct {
		name string
		addr net.Addr
	}{{"inlet", d.inlet.Endpoints().AdminAddr()}, {"relay", d.relay.Endpoints().AdminAddr()}, {"outlet", d.outlet.Endpoints().AdminAddr()}} {
		fmt.Fprintf(&b, "     %-8s http://%s/status  /metrics  /readyz\n", p.name, p.addr)
	}
	fmt.Fprintf(&b, "\nThe identities are in %s until the end. Ctrl-C ends it.\n", d.folder)
	return b.Bytes()
}

// indent sets text apart, with line ends as this program writes them.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		b.WriteString(strings.TrimRight("     "+strings.TrimRight(line, "\n"), " ") + "\n")
	}
	return b.String()
}
