package channel

import (
	"fmt"
	"net"
	"net/netip"
)

// fromOf returns what a channel request says of where nc comes from, "" where nc is no
// TCP connection.
func fromOf(nc net.Conn) string {
	ap := addrPortOf(nc.LocalAddr())
	if !ap.IsValid() {
		return ""
	}
	return ap.String()
}

// parseFrom reads what fromOf has made, and nothing else.
func parseFrom(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || unzoned(ap) != ap || ap.String() != text {
		return netip.AddrPort{}, fmt.Errorf("channel request from %q, which is no IP address and port", text)
	}
	return ap, nil
}

// peerAddr returns the address that the peer says it has, if the path comes from there:
// a relay, a balancer or an address translation has a connection of its own, whose
// address the peer does not know.
func (in *Incoming) peerAddr() netip.AddrPort {
	said, err := parseFrom(in.channel.From)
	if seen := addrPortOf(in.conn.RemoteAddr()); err == nil && seen == said {
		return seen
	}
	return netip.AddrPort{}
}

// addrPortOf returns a TCP address, the zero AddrPort for any other.
func addrPortOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unzoned(t.AddrPort())
}

// unzoned takes off an address what two machines see in different ways: an IPv6 zone,
// which means something to one of them only, and IPv4's disguise.
func unzoned(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
