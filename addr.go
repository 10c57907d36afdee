package culvert

import (
	"context"
	"net"
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
	// Attributes are what the peer's credentials say of it, of those that count now:
	// issued by an authority that is trusted here, not revoked, in their time. The map
	// is the caller's.
	Attributes map[string]string
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
