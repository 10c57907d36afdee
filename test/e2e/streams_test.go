//go:build e2e && linux

package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// noise is a stream of n bytes that no two seeds share.
func noise(seed uint64, n int64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(key), n)
}

func sum(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)), n, err
}

// TestHTTP moves 200 MB (64 in the short form) down and up through a real HTTP server
// and compares hashes.
func TestHTTP(t *testing.T) {
	size := whole[int64](64<<20, 200<<20)
	want, _, err := sum(noise(1, size))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /big", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(rw, noise(1, size)) })
	mux.HandleFunc("POST /big", func(rw http.ResponseWriter, r *http.Request) {
		got, n, err := sum(r.Body)
		fmt.Fprint(rw, got, n, err)
	})
	ln := listenTCP(t)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { srv.Close(); serving.Wait() })

	acrossRoutes(t, func(t *testing.T, relays int) {
		w := chain(t, relays, map[string]string{"web": ln.Addr().String()})
		bigDownAndUp(t, "http://"+w.at("inlet", "web")+"/big", want, size)
	})
}

func bigDownAndUp(t *testing.T, url, want string, size int64) {
	t.Helper()
	client := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := sum(resp.Body)
	resp.Body.Close()
	if got != want || n != size || err != nil {
		t.Errorf("down: got %d bytes, %s, %v; want %d, %s", n, got, err, size, want)
	}

	resp, err = client.Post(url, "application/octet-stream", noise(1, size))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if answer := fmt.Sprint(want, size, error(nil)); string(body) != answer || err != nil {
		t.Errorf("up: the server saw %s, %v; want %s", body, err, answer)
	}
}

// TestHalfClose has a client shut its writing side and then read an answer that
// the server can only give after it has seen that end.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	addr := serveTCP(t, func(c *net.TCPConn) {
		got, n, err := sum(c)
		fmt.Fprintf(c, "%s %d %v", got, n, err)
	})
	for relays := range 3 {
		t.Run(routeName(relays), func(t *testing.T) {
			w := chain(t, relays, map[string]string{"sum": addr})
			c := dial(t, w.at("inlet", "sum"))
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(c, noise(2, size)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			hash, _, _ := sum(noise(2, size))
			if want := fmt.Sprintf("%s %d %v", hash, size, nil); string(got) != want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

// TestServerHalfClose is the other direction: the server ends first and still
// reads what the client sends.
func TestServerHalfClose(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	sums := make(chan string, 1)
	addr := serveTCP(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "bye")
		_ = c.CloseWrite()
		got, n, err := sum(c)
		sums <- fmt.Sprint(got, n, err)
	})
	w := chain(t, 1, map[string]string{"sum": addr})
	c := dial(t, w.at("inlet", "sum"))
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
		t.Fatalf("got %q, %v; want %q and a clean end", got, err, "bye")
	}
	if _, err := io.Copy(c, noise(3, size)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	hash, _, _ := sum(noise(3, size))
	select {
	case got := <-sums:
		if want := fmt.Sprint(hash, int64(size), error(nil)); got != want {
			t.Errorf("the server saw %s, want %s", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Error("the server never saw the client's end")
	}
}

// TestResetsPass has each side reset its connection: the other side must see a
// reset, and no clean end.
func TestResetsPass(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	addr := serveTCP(t, func(c *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil {
			ends <- err
			return
		}
		_, _ = c.Write(first)
		if first[0] == 'R' { // reset me
			_, _ = io.ReadFull(c, first)
			_ = c.SetLinger(0)
			return
		}
		_, err := io.Copy(io.Discard, c)
		ends <- err
	})
	w := chain(t, 1, map[string]string{"resets": addr})

	t.Run("by the target", func(t *testing.T) {
		c := dial(t, w.at("inlet", "resets"))
		exchange(t, c, "R")
		if _, err := io.WriteString(c, "now"); err != nil {
			t.Fatal(err)
		}
		wantReset(t, c, patience)
		w.node("outlet").wantLog(t, patience, "target_reset")
	})
	t.Run("by the client", func(t *testing.T) {
		c := dial(t, w.at("inlet", "resets"))
		exchange(t, c, "C")
		_ = c.SetLinger(0)
		c.Close()
		select {
		case err := <-ends:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target read %v, want a reset", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the target saw no end")
		}
	})
}

// TestManyStreams has 1,000 connections open at once, each with its own bytes,
// all ended properly.
func TestManyStreams(t *testing.T) { acrossRoutes(t, testManyStreams) }

func testManyStreams(t *testing.T, relays int) {
	const streams = 1000
	w := chain(t, relays, map[string]string{"echo": serveTCP(t, echo)})
	addr := w.at("inlet", "echo")

	var open, done sync.WaitGroup
	open.Add(streams)
	errs := make(chan error, streams)
	for i := range streams {
		done.Go(func() {
			c, err := net.DialTimeout("tcp", addr, 30*time.Second)
			if err == nil {
				defer c.Close()
				err = tryExchange(c, fmt.Sprintf("hello from %d", i), time.Minute)
			}
			open.Done()
			if err == nil {
				open.Wait() // all are open now
				err = manyMore(c.(*net.TCPConn), uint64(i))
			}
			if err != nil {
				errs <- fmt.Errorf("stream %d: %w", i, err)
			}
		})
	}
	done.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if failed++; failed <= 5 {
			t.Error(err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d streams failed", failed, streams)
	}
}

// manyMore has 64 KiB echoed and the end as well.
func manyMore(c *net.TCPConn, seed uint64) error {
	const size = 64 << 10
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	want, _, _ := sum(noise(seed, size))
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		_, writeErr = io.Copy(c, noise(seed, size))
		_ = c.CloseWrite()
	})
	got, n, err := sum(c)
	writing.Wait()
	if err := errors.Join(err, writeErr); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("got %d bytes, %s, want %d, %s", n, got, size, want)
	}
	return nil
}
