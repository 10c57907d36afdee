package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// startLiar runs a relay that answers each request with what say does on its conn,
// and then closes it. What say is given ends with the test.
func startLiar(t *testing.T, say func(ctx context.Context, nc net.Conn, in *channel.Incoming)) (route.Route, *Dialer) {
	t.Helper()
	local, ln := newLocal(t), listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				in, err := channel.Respond(ctx, nc, local, channel.PurposeHop, channel.Options{})
				if err != nil {
					return
				}
				defer context.AfterFunc(ctx, func() { _ = sock.ResetClose(nc) })()
				say(ctx, nc, in)
				_ = in.Accept().Close()
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		serving.Wait()
	})
	relay := &testRelay{local: local, addr: ln.Addr().String()}
	return route.Route{relay.hop(t)}, &Dialer{Local: newLocal(t), AnswerTimeout: patience}
}

// sayAll writes messages until one cannot be written, and reports whether all were.
func sayAll(c *channel.Conn, ms ...message) bool {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	for _, m := range ms {
		if writeMessage(c, m) != nil {
			return false
		}
	}
	return true
}

// distinct lists n outlets, each once, from number first on.
func distinct(first, n int) message {
	m := message{Kind: msgListed}
	for i := range n {
		outlet, instance := identity.Identifier{0: 1, 1: byte(first + i), 2: byte((first + i) >> 8)}, channel.Instance{}
		m.Replicas = append(m.Replicas, listed{Outlet: outlet[:], Instance: instance[:]})
	}
	return m
}

// Whatever a relay answers, a find ends soon, and with no more than it may hold.
func TestFindAtALyingRelay(t *testing.T) {
	ok, end := message{Kind: msgOK}, message{Kind: msgEnd}
	for _, tt := range []struct {
		name, want string
		say        func(ctx context.Context, c *channel.Conn)
	}{
		{"lists for ever", "more than 256 outlets", func(ctx context.Context, c *channel.Conn) {
			for i := 0; ctx.Err() == nil; i += maxListed {
				if i == 0 && !sayAll(c, ok) || !sayAll(c, distinct(i, maxListed)) {
					return
				}
			}
		}},
		{"lists one too many", "more than 256 outlets", func(_ context.Context, c *channel.Conn) {
			sayAll(c, ok)
			for i := 0; i < maxFound; i += maxListed {
				sayAll(c, distinct(i, maxListed))
			}
			sayAll(c, distinct(maxFound, 1), end)
		}},
		{"drips", "timeout", func(ctx context.Context, c *channel.Conn) {
			sayAll(c, ok)
			for i := 0; i < maxFound && ctx.Err() == nil && sayAll(c, distinct(i, 1)); i++ {
				wait.Sleep(ctx, 20*time.Millisecond)
			}
		}},
		{"says nothing", "timeout", func(ctx context.Context, _ *channel.Conn) { <-ctx.Done() }},
		{"stops after ok", "timeout", func(ctx context.Context, c *channel.Conn) { sayAll(c, ok); <-ctx.Done() }},
		{"stops in a list", "timeout", func(ctx context.Context, c *channel.Conn) {
			sayAll(c, ok, distinct(0, 3))
			_, _ = c.Write([]byte{0, 40, 0xa2})
			<-ctx.Done()
		}},
		{"lists one twice", "was found twice", func(_ context.Context, c *channel.Conn) {
			sayAll(c, ok, distinct(0, 3), distinct(2, 1), end)
		}},
		{"ends in the middle", "unexpected EOF", func(_ context.Context, c *channel.Conn) {
			sayAll(c, ok, distinct(0, 3))
			_ = c.Close()
		}},
		{"ends at once", "EOF", func(_ context.Context, c *channel.Conn) { _ = c.Close() }},
		{"ends with a reason", "shutdown", func(_ context.Context, c *channel.Conn) {
			sayAll(c, ok, distinct(0, 3))
			_ = c.CloseWithReason(code.Shutdown, "bye")
		}},
		{"resets", "waiting for the answer to find", func(_ context.Context, c *channel.Conn) { sayAll(c, ok, distinct(0, 3)) }},
		{"lists without ok", "kind 8 as an answer", func(_ context.Context, c *channel.Conn) { sayAll(c, distinct(0, 3), end) }},
		{"says ok twice", "kind 1 among", func(_ context.Context, c *channel.Conn) { sayAll(c, ok, ok, end) }},
		{"talks nonsense", "unexpected message", func(_ context.Context, c *channel.Conn) { _, _ = c.Write([]byte{0xff, 0xff}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, d := startLiar(t, func(ctx context.Context, nc net.Conn, in *channel.Incoming) {
				if tt.say(ctx, in.Accept()); tt.name == "resets" {
					_ = sock.ResetClose(nc)
				}
			})
			if tt.want == "timeout" {
				d.AnswerTimeout = 300 * time.Millisecond
			}
			err := noFind(t, d, r, "orders-db")
			var failed *PathError
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a PathError with %q", err, tt.want)
			}
		})
	}
}

// An answer that has come whole counts, whatever the relay does then; a refusal is
// found in the error.
func TestFindAtARudeRelay(t *testing.T) {
	r, d := startLiar(t, func(_ context.Context, _ net.Conn, in *channel.Incoming) {
		sayAll(in.Accept(), message{Kind: msgOK}, distinct(0, maxListed), distinct(maxListed, 1), message{Kind: msgEnd, LeftOut: true})
		_, _ = in.Accept().Write([]byte("and more")) // which nobody has to read
	})
	if got := find(t, d, r, "orders-db"); len(got) != maxListed+1 {
		t.Errorf("got %d, want %d", len(got), maxListed+1)
	}
	r, d = startLiar(t, func(_ context.Context, _ net.Conn, in *channel.Incoming) { _ = in.Refuse(code.CredentialRevoked, "no") })
	err := noFind(t, d, r, "orders-db")
	wantRefusal(t, err, code.CredentialRevoked, "relay refuses to find")
	if !strings.Contains(err.Error(), "hop 1 of 1") {
		t.Errorf("got %q, want the relay named", err)
	}
}

// A find ends with its context.
func TestFindCancelled(t *testing.T) {
	asked := make(chan struct{})
	r, d := startLiar(t, func(ctx context.Context, _ net.Conn, _ *channel.Incoming) { close(asked); <-ctx.Done() })
	d.AnswerTimeout = patience
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody wants to know")
	go func() { <-asked; cancel(gone) }()
	if _, err := d.Find(ctx, r, "orders-db"); !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause", err)
	}
}

// A relay of several processes is asked at each address, until one knows an outlet.
func TestFindAtSeveralAddresses(t *testing.T) {
	type place struct {
		name    string
		relays  [2]string // by the order in which they are asked: some, none, dead, refuses
		want    bool
		refused bool
		asked   int
	}
	for _, tt := range []place{
		{"the first knows", [2]string{"some", "none"}, true, false, 1},
		{"the second knows", [2]string{"none", "some"}, true, false, 2},
		{"none knows", [2]string{"none", "none"}, false, false, 2},
		{"one is dead", [2]string{"dead", "some"}, true, false, 2},
		{"one is dead, the other knows none", [2]string{"dead", "none"}, false, false, 2},
		{"none known, the other is dead", [2]string{"none", "dead"}, false, false, 2},
		{"one refuses", [2]string{"refuses", "some"}, true, false, 2},
		{"none known, the other refuses", [2]string{"none", "refuses"}, false, false, 2},
		{"both refuse", [2]string{"refuses", "refuses"}, false, true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, caller, dns := newIdentity(t), newLocal(t), &hosts{}
			dns.set("relay", "127.0.0.1", "127.0.0.2")
			first := listen(t, "127.0.0.1:0")
			port := uint16(first.Addr().(*net.TCPAddr).Port)
			order, err := resolve(t.Context(), dns.lookup, "relay", port, caller.Identifier())
			if err != nil {
				t.Fatal(err)
			}
			k := newCatalogue()
			for i, address := range order {
				ln := first
				if address != first.Addr().String() {
					ln = listen(t, address)
				}
				runRelay(t, ln, id, k, tt.relays[i])
			}
			var dialled []string
			d := &Dialer{Local: caller, LookupHost: dns.lookup, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled = append(dialled, address)
				return new(net.Dialer).DialContext(ctx, network, address)
			}}
			r := route.Route{{Host: "relay", Port: port, Identifier: id.Identifier()}}
			found, err := tryFind(d, r, "orders-db")
			if tt.refused != (err != nil) || tt.refused && refusedBy(err).Code != code.FindDenied {
				t.Errorf("got %v, want a refusal: %t", err, tt.refused)
			}
			if (len(found) == 1) != tt.want || len(found) > 1 {
				t.Errorf("got %v, want an outlet: %t", found, tt.want)
			}
			if !slices.Equal(dialled, order[:tt.asked]) {
				t.Errorf("asked at %v, want %v", dialled, order[:tt.asked])
			}
		})
	}
}

// runRelay runs a process of a relay that knows some outlet, none, refuses, or is dead.
func runRelay(t *testing.T, ln net.Listener, id *identity.Identity, k *catalogue, kind string) {
	t.Helper()
	if kind == "dead" {
		_ = ln.Close()
		return
	}
	relay := startRelayOn(t, ln, localOf(t, id), func(c *Config) {
		if k.rule(c); kind == "refuses" {
			c.Offers = func() func(channel.Peer, string) bool { return nil } // not now
		}
	})
	if kind == "some" {
		crowd(relay, k, 1, 0)
	}
}

func FuzzReadFound(f *testing.F) {
	for _, ms := range [][]message{
		{{Kind: msgOK}, {Kind: msgEnd}},
		{{Kind: msgOK}, {Kind: msgListed, Replicas: listedOf(3)}, {Kind: msgEnd, LeftOut: true}},
		{{Kind: msgOK}, distinct(0, 8), distinct(8, 8), {Kind: msgEnd}},
		{{Kind: msgOK}, distinct(0, 2), distinct(1, 1), {Kind: msgEnd}},
	} {
		var b bytes.Buffer
		for _, m := range ms {
			if err := writeMessage(&b, m); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := readFound(bytes.NewReader(b))
		if err != nil {
			if found != nil || errors.Is(err, io.EOF) && len(b) > 0 {
				t.Fatalf("%x: got %v beside %v", b, found, err)
			}
			return
		}
		seen := map[Replica]bool{}
		for _, r := range found {
			r.Draining = false
			if seen[r] {
				t.Fatalf("%x lists %v twice", b, r)
			}
			seen[r] = true
		}
		if len(found) > maxFound {
			t.Fatalf("%x lists %d", b, len(found))
		}
	})
}
