package trace

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/culvert-net/culvert/internal/trace/tracetest"
)

// TestStrangeCollector: what answers no HTTP makes no long lines of the log, and does
// nothing to who reads it.
func TestStrangeCollector(t *testing.T) {
	for name, answer := range map[string]string{
		"a header that is none": "HTTP/1.1 200 OK\r\n\x1b]0;gone\a\u009b2J" + strings.Repeat("x", 32<<10) + "\r\n\r\n",
		"no HTTP":               "\x1b[2J\u009b\r\n\r\n",
		"a long reason":         "HTTP/1.1 503 \u202e" + strings.Repeat("x", 32<<10) + "\r\n\r\n",
		"a long refusal":        "HTTP/1.1 400 \u202e" + strings.Repeat("x", 32<<10) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the tracer waits for more spans
			c, _ := tracetest.Start(t, false)
			var w *told
			tr := newTracer(t, c, func(cfg *Config) {
				w = newTold(cfg)
				cfg.Endpoint, cfg.Flush = "http://"+answering(t, answer)+"/v1/traces", func() time.Duration { return time.Second }
			})
			stop := start(t, tr)
			tr.StartClient(time.Now(), "stream").End("")
			w.await(t, "that it fails")
			stop()
			if text := w.failed[0].Error(); len(text) > 4<<10 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("told an error of %d bytes: %.200q", len(text), text)
			}
		})
	}
}

// answering starts a server that answers each request so, and returns its address.
func answering(t *testing.T, answer string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(nc).ReadString('\n')
			_, _ = nc.Write([]byte(answer))
			_ = nc.Close()
		}
	})
	return ln.Addr().String()
}
