package obs

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/sock/socktest"
)

// dial returns a new conn, or nil if none is accepted now.
func dial(l *socktest.Listener) net.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	nc, err := l.Dial(ctx)
	if err != nil {
		return nil
	}
	return nc
}

// withServer runs f in a bubble of made-up time with a served metrics endpoint.
func withServer(t *testing.T, f func(t *testing.T, l *socktest.Listener), secure ...*tls.Config) {
	synctest.Test(t, func(t *testing.T) {
		o := newTestObs(t)
		l := socktest.Listen()
		p := part{name: "metrics", ln: l, srv: o.server(o.metricsHandler())}
		for _, p.secure = range secure {
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.serve(ctx) }()
		f(t, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// untilEnd reads until the other side closes and returns how long that took and
// what came.
func untilEnd(nc net.Conn) (time.Duration, string) {
	start := time.Now()
	b, _ := io.ReadAll(nc)
	return time.Since(start), string(b)
}

// wantAbout wants a time within a tenth of a second.
func wantAbout(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+100*time.Millisecond {
		t.Errorf("%s ends after %v, want %v", what, got, want)
	}
}

// A client that is slow with its header is sent away, however it is slow.
func TestSlowHeaders(t *testing.T) {
	for name, drip := range map[string]string{
		"silent":     "",
		"one letter": "G",
		"one line":   "GET /healthz HTTP/1.1\r\n",
		"drips":      "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			withServer(t, func(t *testing.T, l *socktest.Listener) {
				nc := dial(l)
				var dripping sync.WaitGroup
				defer dripping.Wait()
				defer nc.Close()
				dripping.Go(func() { // a byte each 100 ms, as long as somebody takes them
					for _, b := range []byte(drip) {
						if _, err := nc.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
				took, _ := untilEnd(nc)
				wantAbout(t, "the conn", took, headerTimeout)
			})
		})
	}
}

// An idle conn is closed after a while, which gives its place back.
func TestIdleConns(t *testing.T) {
	withServer(t, func(t *testing.T, l *socktest.Listener) {
		nc := dial(l)
		defer nc.Close()
		if _, err := io.WriteString(nc, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v, %v", resp, err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		took, _ := untilEnd(nc)
		wantAbout(t, "the idle conn", took, idleTimeout)
	})
}

// A client that does not read its answer does not keep its conn for ever.
func TestReaderThatDoesNotRead(t *testing.T) {
	withServer(t, func(t *testing.T, l *socktest.Listener) {
		nc := dial(l)
		defer nc.Close()
		if _, err := io.WriteString(nc, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writeTimeout + time.Second)
		if _, got := untilEnd(nc); strings.HasSuffix(got, "0\r\n\r\n") {
			t.Errorf("the whole answer came after %v", writeTimeout)
		}
	})
}

// At most maxConns are served at a time; the next one has its turn when one has
// ended.
func TestConnsAreBounded(t *testing.T) {
	withServer(t, func(t *testing.T, l *socktest.Listener) {
		var held []net.Conn
		for range maxConns {
			nc := dial(l)
			if nc == nil {
				t.Fatalf("conn %d is not accepted, want %d", len(held)+1, maxConns)
			}
			held = append(held, nc)
		}
		if nc := dial(l); nc != nil {
			nc.Close()
			t.Errorf("%d conns are accepted at a time, want %d", maxConns+1, maxConns)
		}
		held[0].Close()
		synctest.Wait()
		if nc := dial(l); nc == nil {
			t.Error("none is accepted after one has ended")
		} else {
			held = append(held, nc)
		}
		for _, nc := range held {
			nc.Close()
		}
	})
}

// Headers and bodies beyond their bounds end the conn with an answer that says
// so, or are left alone.
func TestSizesAreBounded(t *testing.T) {
	s, _ := serve(t, newTestObs(t), Endpoints{Metrics: "127.0.0.1:0"})
	big := "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n"
	if got := exchange(t, s.MetricsAddr(), big); got != "" && !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("a header of %d bytes: got %.60q, want 431", len(big), got)
	}
	fits := "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Big: " + strings.Repeat("x", maxHeader/2) + "\r\n\r\n"
	if got := exchange(t, s.MetricsAddr(), fits); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a header of %d bytes: got %.60q, want 200", len(fits), got)
	}
	nc, err := net.Dial("tcp", s.MetricsAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	const body = 1 << 20
	fmt.Fprintf(nc, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", body)
	sent, err := io.Copy(nc, io.LimitReader(endless{}, body))
	answer, _ := io.ReadAll(nc) // ends in a reset, since bytes are left unread
	if err == nil && len(answer) == 0 {
		t.Errorf("a body of %d bytes: all %d were taken and nothing was said", body, sent)
	}
	if a := string(answer); a != "" && !strings.Contains(a, "Connection: close") {
		t.Errorf("a body of %d bytes: the conn is kept:\n%s", body, a)
	}
}

// endless is a reader without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body is bounded for whoever reads one, some day.
func TestBodyIsBounded(t *testing.T) {
	var got error
	h := bounded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, got = io.ReadAll(r.Body)
	}))
	for size, fails := range map[int]bool{maxBody: false, maxBody + 1: true} {
		req := request(t, "POST", "http://x/")
		req.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", size)))
		h.ServeHTTP(discard{}, req)
		var tooLarge *http.MaxBytesError
		if errors.As(got, &tooLarge) != fails {
			t.Errorf("reading a body of %d bytes: %v", size, got)
		}
	}
}

// discard is a ResponseWriter for nobody.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
