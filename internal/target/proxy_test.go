package target

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"pgregory.net/rapid"
)

// read reads a header as a target does that knows nothing of this package, and returns
// what stands behind it.
func read(t testing.TB, b []byte) (*proxyproto.Header, string) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(b))
	h, err := proxyproto.Read(r)
	if err != nil {
		t.Fatalf("reading %q: %v", b, err)
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return h, string(rest)
}

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// The bytes of version 1 are text, and so here to be compared.
func TestHeaderV1(t *testing.T) {
	for _, tt := range []struct {
		from    string
		reached net.Addr
		want    string
	}{
		{"192.0.2.1:4242", tcpAddr("198.51.100.2:5432"), "PROXY TCP4 192.0.2.1 198.51.100.2 4242 5432\r\n"},
		{"[2001:db8::1]:4242", tcpAddr("[2001:db8::2]:5432"), "PROXY TCP6 2001:db8::1 2001:db8::2 4242 5432\r\n"},
		{"192.0.2.1:4242", tcpAddr("[2001:db8::2]:5432"), "PROXY TCP4 192.0.2.1 0.0.0.0 4242 5432\r\n"},
		{"[2001:db8::1]:4242", tcpAddr("198.51.100.2:5432"), "PROXY TCP6 2001:db8::1 :: 4242 5432\r\n"},
		{"192.0.2.1:4242", &net.UnixAddr{Name: "/run/s"}, "PROXY TCP4 192.0.2.1 0.0.0.0 4242 0\r\n"},
		{"[::ffff:192.0.2.1]:4242", tcpAddr("198.51.100.2:5432"), "PROXY TCP4 192.0.2.1 198.51.100.2 4242 5432\r\n"},
		{"", tcpAddr("198.51.100.2:5432"), "PROXY UNKNOWN\r\n"},
		{"unix:uid=0,pid=1", &net.UnixAddr{Name: "/run/s"}, "PROXY UNKNOWN\r\n"},
	} {
		got, err := header(1, &Caller{Address: ParseClient(tt.from), Peer: "nobody sees this"}, tt.reached)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s to %v: %q, %v; want %q", tt.from, tt.reached, got, err, tt.want)
		}
	}
}

// Version 2 says who calls, with an address or without.
func TestHeaderV2(t *testing.T) {
	from := Caller{Service: "orders-db", Peer: strings.Repeat("a", 52), Name: "app-1", Stream: strings.Repeat("b", 32) + "/4294967295"}
	for _, address := range []string{"192.0.2.1:4242", "[2001:db8::1]:4242", ""} {
		from.Address = ParseClient(address)
		b, err := header(2, &from, tcpAddr("198.51.100.2:5432"))
		if err != nil {
			t.Fatal(err)
		}
		h, rest := read(t, append(b, "SELECT 1"...))
		if rest != "SELECT 1" {
			t.Errorf("behind the header stands %q", rest)
		}
		switch {
		case address == "" && (h.Command != proxyproto.LOCAL || h.TransportProtocol != proxyproto.UNSPEC):
			t.Errorf("without an address: %v %v, want LOCAL and UNSPEC", h.Command, h.TransportProtocol)
		case address != "" && (h.Command != proxyproto.PROXY || h.SourceAddr.String() != address):
			t.Errorf("%v from %v, want PROXY from %s", h.Command, h.SourceAddr, address)
		}
		list, err := h.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		got := map[proxyproto.PP2Type]string{}
		for _, v := range list {
			got[v.Type] = string(v.Value)
		}
		for kind, want := range map[proxyproto.PP2Type]string{
			proxyproto.PP2_TYPE_AUTHORITY: from.Service, proxyproto.PP2_TYPE_UNIQUE_ID: from.Stream, TypePeer: from.Peer, TypeName: from.Name,
		} {
			if got[kind] != want {
				t.Errorf("type 0x%02X is %q, want %q", byte(kind), got[kind], want)
			}
		}
		if len(got) != 4 {
			t.Errorf("%d types, want 4", len(got))
		}
	}
}

// Whatever an inlet claims of its client, the target reads one header, which names an
// address or none, and not a byte more.
func TestNoClaimInjects(t *testing.T) {
	claims := rapid.OneOf(
		rapid.String(),
		rapid.StringOfN(rapid.RuneFrom([]rune("0123456789abcdef.:[]%\r\n PROXYTCP4")), 0, 80, -1),
		rapid.Custom(func(rt *rapid.T) string {
			return "[fe80::1%" + rapid.String().Draw(rt, "zone") + "]:" + rapid.StringMatching(`[0-9]{0,6}`).Draw(rt, "port")
		}),
		rapid.Custom(func(rt *rapid.T) string {
			return rapid.SampledFrom([]string{"192.0.2.1:80", "[2001:db8::1]:1", "[::ffff:1.2.3.4]:5"}).Draw(rt, "good") + rapid.String().Draw(rt, "more")
		}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		claim := claims.Draw(rt, "claim")
		from := &Caller{Address: ParseClient(claim), Service: "db"}
		for version := 1; version <= 2; version++ {
			b, err := header(version, from, tcpAddr("198.51.100.2:5432"))
			if err != nil {
				rt.Fatalf("%q: %v", claim, err)
			}
			h, rest := read(t, append(b, "GET / HTTP/1.0\r\n"...))
			if rest != "GET / HTTP/1.0\r\n" {
				rt.Fatalf("%q makes version %d of %q: behind it stands %q", claim, version, b, rest)
			}
			if version == 1 && (bytes.Count(b, []byte("\r\n")) != 1 || len(b) > 107) {
				rt.Fatalf("%q makes %q", claim, b)
			}
			if ap, err := netip.ParseAddrPort(claim); err != nil && h.TransportProtocol != proxyproto.UNSPEC {
				rt.Fatalf("%q, which is no address, makes %v (%v)", claim, h.SourceAddr, ap)
			}
		}
	})
}

func FuzzParseClient(f *testing.F) {
	for _, s := range []string{"192.0.2.1:80", "[2001:db8::1%eth0]:80", "unix:uid=0,pid=1", "1.2.3.4", ":80", "[::]:0", "\r\nPROXY"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ap := ParseClient(s)
		if !ap.IsValid() {
			return
		}
		if ap.Addr().Zone() != "" || ap.Addr().Is4In6() || ap.Addr().IsUnspecified() {
			t.Errorf("%q is %v", s, ap)
		}
		if again := ParseClient(ap.String()); again != ap {
			t.Errorf("%q is %v, and that is %v", s, ap, again)
		}
	})
}
