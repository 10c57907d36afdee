package culvert

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/culvert-net/culvert/pkg/identity"
)

// network is what [Addr.Network] returns.
const network = "culvert"

// An Addr is one end of a stream. A service of an outlet is to its identifier what a
// port is to a host.
type Addr struct {
	Identifier identity.Identifier // whose end it is; zero: it is not known
	Service    string              // of the end that offers it; "": it is the other end
	Stream     uint32              // the stream's number in its channel, of the other end
}

// Network returns "culvert".
func (a *Addr) Network() string { return network }

// String returns "IDENTIFIER:SERVICE" or "IDENTIFIER:STREAM", which [net.SplitHostPort]
// takes apart.
func (a *Addr) String() string {
	port := a.Service
	if port == "" {
		port = strconv.FormatUint(uint64(a.Stream), 10)
	}
	if a.Identifier.IsZero() {
		return port
	}
	return a.Identifier.String() + ":" + port
}

// A Peer is who holds the other end of a stream.
type Peer struct {
	// Identifier is proven.
	Identifier identity.Identifier
	// Name is what the peer's process calls itself; "" where it has no name.
	Name string
	// ClientAddress is whom the peer says that it has opened the stream for: the address of
	// an inlet's client, or what [WithClientAddress] was told. "": it says nobody. It
	// proves nothing.
	ClientAddress string
	// Attributes are what the peer's credentials say of it, of those that count now:
	// issued by an authority that is trusted here, not revoked, in their time. The map
	// is the caller's.
	Attributes map[string]string
}

type clientKey struct{}

// WithClientAddress returns a context with which a dial tells the other end for whom the
// stream is, when a program dials for clients of its own: as [Peer.ClientAddress] of a
// Listener, and in the PROXY protocol of an outlet whose service has
// trust_client_address. It is the dialer's claim. The zero address tells nobody's.
//
// An [net/http.Transport] hands a conn that it has dialled for one request to others,
// too: one that is used for several clients keeps none alive ([net/http.Transport.DisableKeepAlives]).
func WithClientAddress(ctx context.Context, client netip.AddrPort) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// clientOf returns the address of WithClientAddress as a stream has it.
func clientOf(ctx context.Context) string {
	client, _ := ctx.Value(clientKey{}).(netip.AddrPort)
	if !client.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port()).String()
}

type peerKey struct{}

// ConnContext makes the peer of c known to ctx, for [PeerFromContext]. It is for
// [net/http.Server.ConnContext]. A conn that wraps a Conn, and has a method NetConn as
// *tls.Conn does, is taken for it; any other changes nothing.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	for {
		switch is := c.(type) {
		case *Conn:
			return context.WithValue(ctx, peerKey{}, is)
		case interface{ NetConn() net.Conn }:
			c = is.NetConn()
		default:
			return ctx
		}
	}
}

// PeerFromContext returns who holds the other end of the conn that [ConnContext] was
// told of, as [Conn.Peer] says it now; ok is false if there was none.
func PeerFromContext(ctx context.Context) (p Peer, ok bool) {
	c, ok := ctx.Value(peerKey{}).(*Conn)
	if !ok {
		return Peer{}, false
	}
	return c.Peer(), true
}
