package target

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Types of a version 2 header's TLVs that are this project's own: the PROXY protocol
// leaves 0xE0 to 0xEF to applications (section 2.2.7).
const (
	TypePeer proxyproto.PP2Type = 0xE0 // the identifier that the peer has proven
	TypeName proxyproto.PP2Type = 0xE1 // what the peer's process is called, by its own word
)

// A Caller is what a target can be told of who calls.
type Caller struct {
	// Address is the source that the header names; the zero AddrPort is not known.
	Address netip.AddrPort
	Service string // that was asked for
	Peer    string // the identifier that the peer has proven
	Name    string // of the peer's process; "": it has none
	Stream  string // the name under which logs know the connection, at most 128 bytes
}

// ParseClient returns the address of a client that an inlet claims in a stream's
// OPEN. Whatever the text is, what comes back is an address and a port and no more, or
// the zero AddrPort, which stands for one that is not known: a client of a unix
// socket has none.
func ParseClient(claim string) netip.AddrPort {
	ap, err := netip.ParseAddrPort(claim)
	if err != nil || !ap.IsValid() || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		return netip.AddrPort{}
	}
	return plain(ap)
}

// addressOf returns what a socket's conn calls its other end, the zero AddrPort where
// that is no TCP address.
func addressOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return plain(t.AddrPort())
	}
	return netip.AddrPort{}
}

// plain takes what the header has no room for off an address: an IPv6 zone, which
// means something to one machine only, and IPv4's disguise.
func plain(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// header returns the header of a version, for a connection that has reached an
// address (The PROXY protocol, versions 1 and 2, https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
// A caller whose address is not known is UNKNOWN in version 1, and in version 2 LOCAL:
// then the receiver takes the connection for what it is.
func header(version int, from *Caller, reached net.Addr) ([]byte, error) {
	h := &proxyproto.Header{Version: byte(version), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if from.Address.IsValid() {
		h.Command, h.TransportProtocol = proxyproto.PROXY, proxyproto.TCPv6
		if from.Address.Addr().Is4() {
			h.TransportProtocol = proxyproto.TCPv4
		}
		h.SourceAddr = net.TCPAddrFromAddrPort(from.Address)
		h.DestinationAddr = net.TCPAddrFromAddrPort(destination(from.Address.Addr(), addressOf(reached)))
	}
	if version == 2 {
		if err := h.SetTLVs(tlvs(from)); err != nil {
			return nil, fmt.Errorf("making the PROXY protocol's header: %w", err)
		}
	}
	b, err := h.Format()
	if err != nil {
		return nil, fmt.Errorf("making the PROXY protocol's header: %w", err)
	}
	return b, nil
}

// destination returns the address of the target, of the same family as the source, as
// the header has to have it: one of all zeros where the target has another.
func destination(source netip.Addr, reached netip.AddrPort) netip.AddrPort {
	switch {
	case reached.IsValid() && reached.Addr().Is4() == source.Is4():
		return reached
	case source.Is4():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), reached.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), reached.Port())
}

// tlvs returns what version 2 has beside addresses.
func tlvs(from *Caller) (list []proxyproto.TLV) {
	for _, v := range []struct {
		kind  proxyproto.PP2Type
		value string
	}{
		{proxyproto.PP2_TYPE_AUTHORITY, from.Service},
		{proxyproto.PP2_TYPE_UNIQUE_ID, from.Stream},
		{TypePeer, from.Peer},
		{TypeName, from.Name},
	} {
		if v.value != "" {
			list = append(list, proxyproto.TLV{Type: v.kind, Value: []byte(v.value)})
		}
	}
	return list
}
