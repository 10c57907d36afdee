package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/systemd"
)

// assign gives each socket of the service manager to the place that it is for: the one
// with its address, or the service with its name, whose address must not be another. A
// socket that is for nobody is an error, which says what to change: connections would
// wait at it for ever.
func assign(ctx context.Context, c *config.Common, sockets []*systemd.Socket, places []place) error {
	claim := func(s *systemd.Socket, fits func(p *place) bool) bool {
		for i := range places {
			if p := &places[i]; p.socket == nil && fits(p) {
				p.socket = s
				return true
			}
		}
		return false
	}
	var rest []*systemd.Socket
	for _, s := range sockets {
		if !claim(s, func(p *place) bool { return isAt(ctx, p.addr, s.Addr(), false) }) {
			rest = append(rest, s)
		}
	}
	for _, s := range rest {
		if !claim(s, func(p *place) bool { return p.service == s.Name() && isAt(ctx, p.addr, s.Addr(), true) }) {
			return unclaimed(c, s, places)
		}
	}
	return nil
}

// isAt reports whether a socket listens at an address of the settings, at any port
// where that has port 0 and anyPort is set.
func isAt(ctx context.Context, want config.Address, addr net.Addr, anyPort bool) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	is := tcp.AddrPort()
	if want.Port != is.Port() && (want.Port != 0 || !anyPort) {
		return false
	}
	if ip, err := netip.ParseAddr(want.Host); err == nil {
		return ip.Unmap() == is.Addr().Unmap()
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", want.Host)
	return err == nil && slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap() == is.Addr().Unmap() })
}

// unclaimed says why a socket is for nobody.
func unclaimed(c *config.Common, s *systemd.Socket, places []place) error {
	for _, p := range places {
		if p.socket == nil && p.service == s.Name() && p.service != "" {
			return fmt.Errorf("the service manager has opened the socket %q at %s, and %s says %s: write the same address there and in the socket's unit (ListenStream=)",
				s.Name(), s.Addr(), c.Where(p.key), p.addr)
		}
	}
	var all []string
	for _, p := range places {
		all = append(all, p.addr.String())
	}
	return fmt.Errorf("the service manager has opened the socket %q at %s, where nothing listens by the settings (%s): write the address of a listen in the socket's unit (ListenStream=), or name the socket for a service (FileDescriptorName=)",
		s.Name(), s.Addr(), strings.Join(all, ", "))
}
