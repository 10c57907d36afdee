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

// A handover is the sockets that the service manager has opened for this process, and
// which place of the settings each is for. A nil handover has none.
type handover struct {
	sockets []*systemd.Socket
	taken   []takenSocket // in the order of sockets, once all are
}

// A takenSocket is one and whose it is.
type takenSocket struct {
	socket *systemd.Socket
	place  place
}

// take finds out which place each socket is for: the one with its address, or the
// service with its name, whose address must not be another. A socket that is for
// nobody is an error, which says what to change: connections would wait at it for
// ever.
func (h *handover) take(ctx context.Context, c *config.Common, places []place) error {
	if h == nil || len(h.sockets) == 0 {
		return nil
	}
	free := slices.Clone(places)
	h.taken = make([]takenSocket, len(h.sockets))
	claim := func(i int, fits func(place) bool) bool {
		at := slices.IndexFunc(free, fits)
		if at < 0 {
			return false
		}
		h.taken[i] = takenSocket{h.sockets[i], free[at]}
		free = slices.Delete(free, at, at+1)
		return true
	}
	var rest []int
	for i, s := range h.sockets {
		if !claim(i, func(p place) bool { return isAt(ctx, p.addr, s.Addr(), false) }) {
			rest = append(rest, i)
		}
	}
	for _, i := range rest {
		s := h.sockets[i]
		if !claim(i, func(p place) bool { return p.service == s.Name() && isAt(ctx, p.addr, s.Addr(), true) }) {
			return unclaimed(c, s, free, places)
		}
	}
	return nil
}

// of returns the socket for a place, nil if there is none. What was taken for a
// service is its own, wherever its place stands among the others after a change.
func (h *handover) of(p place) *systemd.Socket {
	if h == nil {
		return nil
	}
	for _, t := range h.taken {
		if t.place.addr == p.addr && (p.addr.Port != 0 || t.place.service == p.service) {
			return t.socket
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
func unclaimed(c *config.Common, s *systemd.Socket, free, places []place) error {
	for _, p := range free {
		if p.service == s.Name() && p.service != "" {
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
