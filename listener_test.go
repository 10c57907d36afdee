package culvert_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
)

// A closed listener accepts no more; what it has accepted goes on, as that of package
// net does.
func TestCloseKeepsAcceptedConns(t *testing.T) {
	p := newPair(t, pairing{})
	a, b := p.conns()
	accepting := make(chan error, 1)
	go func() {
		_, err := p.ln.Accept()
		accepting <- err
	}()
	if err := p.ln.Close(); err != nil {
		t.Fatal(err)
	}
	var oe *net.OpError
	if err := <-accepting; !errors.Is(err, net.ErrClosed) || !errors.As(err, &oe) || oe.Op != "accept" {
		t.Errorf("Accept: %v", err)
	}
	if err := p.ln.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	go func() {
		defer b.Close()
		echo(b)
	}()
	wantEcho(t, a, "still here")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.d.Dial(ctx, "echo"); err == nil {
		t.Error("dialled a closed listener")
	}
	_ = a.Close()
	if err := p.ln.Shutdown(withPatience(t)); err != nil {
		t.Errorf("Shutdown after the last conn: %v", err)
	}
}

// Conns that nobody has accepted when the listener is closed are reset.
func TestCloseResetsWhatWaits(t *testing.T) {
	p := newPair(t, pairing{})
	c, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = p.ln.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	wantEnd(t, c, code.Shutdown)
}

// So many wait to be accepted, and one more is refused; one that goes away before it is
// accepted is not accepted.
func TestBacklog(t *testing.T) {
	p := newPair(t, pairing{})
	var waiting []*culvert.Conn
	for range 128 {
		c, err := p.d.Dial(withPatience(t), "echo")
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	_, err := p.d.Dial(withPatience(t), "echo")
	wantCode(t, err, code.Busy)
	for _, c := range waiting[1:] {
		_ = c.Abort()
	}
	_, _ = io.WriteString(waiting[0], "x")
	_ = waiting[0].CloseWrite()
	defer waiting[0].Close()
	// There is room again once the listener knows; those that have gone meanwhile may
	// still be accepted, and end at once.
	for end := time.Now().Add(patience); ; {
		c, err := p.d.Dial(withPatience(t), "echo")
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for {
		c, err := p.ln.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(c)
		_ = c.Close()
		if err == nil && string(got) == "x" {
			return
		}
	}
}

// net/http serves a Listener and is asked through a Dialer; its graceful end is one.
func TestHTTP(t *testing.T) {
	r := newRelay(t)
	p := newPair(t, pairing{relays: []*testRelay{r}})
	begun, finish := make(chan struct{}), make(chan struct{})
	srv := &http.Server{
		ConnContext:       culvert.ConnContext,
		ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, ok := culvert.PeerFromContext(r.Context())
			if !ok || peer.Identifier != p.d.Identifier() {
				t.Errorf("the peer is %+v, %v", peer, ok)
			}
			switch r.URL.Path {
			case "/slow":
				close(begun)
				<-finish
			case "/abort":
				_, _ = io.WriteString(w, "a part")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = io.Copy(w, r.Body)
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := srv.Serve(p.ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	transport := &http.Transport{DialContext: p.d.DialContext}
	client := &http.Client{Transport: transport, Timeout: patience}
	defer transport.CloseIdleConnections()
	post := func(path, body string) (string, error) {
		resp, err := client.Post("http://echo"+path, "text/plain", readerOf(body))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	for range 10 {
		if got, err := post("/", "hello"); err != nil || got != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if got, err := post("/abort", "x"); err == nil {
		t.Errorf("an answer that was aborted looks whole: %q", got)
	}
	slow := make(chan error, 1)
	go func() {
		got, err := post("/slow", "hello")
		if err == nil && got != "hello" {
			err = errors.New("got " + got)
		}
		slow <- err
	}()
	<-begun
	stopping := make(chan error, 1)
	go func() { stopping <- srv.Shutdown(withPatience(t)) }()
	serving.Wait() // Serve returns when the listener is closed
	close(finish)
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if err := <-stopping; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := p.ln.Shutdown(withPatience(t)); err != nil {
		t.Errorf("the listener's Shutdown: %v", err)
	}
}

func readerOf(s string) io.Reader { return io.LimitReader(repeat(s), int64(len(s))) }

type repeat string

func (r repeat) Read(b []byte) (int, error) { return copy(b, r), nil }

// Shutdown waits for conns, and for no longer than its context.
func TestShutdownWaits(t *testing.T) {
	for _, side := range []string{"dialer", "listener"} {
		t.Run(side, func(t *testing.T) {
			p := newPair(t, pairing{})
			a, b := p.conns()
			shut := p.d.Shutdown
			mine, other := a, b
			if side == "listener" {
				shut, mine, other = p.ln.Shutdown, b, a
			}
			defer other.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			if err := shut(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with an open conn: %v", err)
			}
			if _, err := mine.Write([]byte("x")); err == nil {
				t.Error("the conn can be written after Shutdown")
			}
			wantEnd(t, other, code.Shutdown, code.ChannelLost)
			_ = mine.Close()
		})
	}
}

// Several services of one identity each have a listener; one that is closed leaves the
// others.
func TestMoreServices(t *testing.T) {
	p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) {
		c.More = []culvert.Service{{Name: "other", Allow: c.Allow}, {Name: "closed", AllowIf: "false"}}
	}})
	other := p.ln.Of("other")
	if p.ln.Of("echo") != p.ln || p.ln.Of("none") != nil || other == nil || other.Addr().String() != p.ln.Identifier().String()+":other" {
		t.Fatalf("listeners %v, %v, %v", p.ln.Of("echo"), p.ln.Of("none"), other)
	}
	(&pair{t: t, ln: other}).serve(func(c *culvert.Conn) { _, _ = io.WriteString(c, "other") })
	p.serve(echo)
	read := func(service string) (string, error) {
		c, err := p.d.Dial(withPatience(t), service)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.CloseWrite(); err != nil {
			return "", err
		}
		b, err := io.ReadAll(c)
		return string(b), err
	}
	if got, err := read("other"); err != nil || got != "other" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := read("closed")
	wantCode(t, err, code.StreamDenied)
	if err := p.ln.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := read("other"); err != nil || got != "other" {
		t.Errorf("after another service was closed: %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.d.Dial(ctx, "echo"); err == nil {
		t.Error("dialled a service that was closed")
	}
}

// What a program holds and does not close, though its peer has ended it, keeps no other
// conn out.
func TestLostConnsGiveTheirPlaceBack(t *testing.T) {
	p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) { c.MaxConns = 1 }})
	a, held := p.conns()
	_, err := p.d.Dial(withPatience(t), "echo")
	wantCode(t, err, code.Limit)
	_ = a.Abort() // nobody reads it at the other end
	for end := time.Now().Add(patience); ; {
		c, err := p.d.Dial(withPatience(t), "echo")
		if err == nil {
			_ = c.Close()
			break
		}
		wantCode(t, err, code.Limit)
		if time.Now().After(end) {
			t.Fatal("the place is never given back")
		}
	}
	wantEnd(t, held, code.Aborted)
	_ = held.Close()
}
