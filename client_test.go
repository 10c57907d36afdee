package culvert_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/culvert-net/culvert"
)

// A program that dials for clients of its own says for whom, and for nobody where it is
// told nothing.
func TestClientAddress(t *testing.T) {
	p := newPair(t, pairing{})
	accepting := make(chan *culvert.Conn, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		defer close(accepting)
		for {
			c, err := p.ln.AcceptConn()
			if err != nil {
				return
			}
			accepting <- c
		}
	})
	defer serving.Wait()
	defer p.ln.Close()
	for _, tt := range []struct {
		client netip.AddrPort
		want   string
	}{
		{netip.AddrPort{}, ""},
		{netip.MustParseAddrPort("203.0.113.7:4711"), "203.0.113.7:4711"},
		{netip.MustParseAddrPort("[::ffff:203.0.113.7]:4711"), "203.0.113.7:4711"},
		{netip.MustParseAddrPort("[fe80::1%eth0]:1"), "[fe80::1]:1"},
		{netip.MustParseAddrPort("[2001:db8::1]:65535"), "[2001:db8::1]:65535"},
	} {
		a, err := p.d.Dial(culvert.WithClientAddress(withPatience(t), tt.client), "echo")
		if err != nil {
			t.Fatalf("%s: %v", tt.client, err)
		}
		b := <-accepting
		if got := b.Peer(); got.ClientAddress != tt.want || got.Identifier != p.d.Identifier() || b.ClientAddress() != tt.want {
			t.Errorf("for %s: the peer is %+v, the conn says %q, want %q", tt.client, got, b.ClientAddress(), tt.want)
		}
		if got := a.Peer(); got.ClientAddress != "" {
			t.Errorf("for %s: the dialer's peer is %+v", tt.client, got)
		}
		_ = a.Close()
		_ = b.Close()
	}
}

// Each request of a reverse proxy is told for whom it is.
func TestClientAddressOfRequests(t *testing.T) {
	p := newPair(t, pairing{})
	srv := &http.Server{
		ConnContext: culvert.ConnContext, ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, _ := culvert.PeerFromContext(r.Context())
			_, _ = io.WriteString(w, peer.ClientAddress)
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(p.ln) })
	defer serving.Wait()
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: p.d.DialContext, DisableKeepAlives: true}, Timeout: patience}
	for i := range 3 {
		want := fmt.Sprintf("203.0.113.%d:4711", i+1)
		req, err := http.NewRequestWithContext(culvert.WithClientAddress(withPatience(t), netip.MustParseAddrPort(want)), http.MethodGet, "http://echo/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("the handler has %q, %v, want %q", got, err, want)
		}
	}
}
