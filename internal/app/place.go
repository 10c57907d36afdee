package app

import (
	"context"
	"io/fs"
	"net"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sock"
)

// A place is an address to listen at and the key path of its setting.
type place struct {
	service string // whose clients come there; "": others do
	key     string
	addr    config.Address
	mode    fs.FileMode    // of a unix socket; zero: config.DefaultListenMode
	common  *config.Common // of the settings that name it; nil: those of the start
}

// listen listens at the place.
func (p place) listen(ctx context.Context) (net.Listener, error) {
	network, address := p.addr.Net()
	if network == "unix" {
		mode := p.mode
		if mode == 0 {
			mode = config.DefaultListenMode
		}
		return sock.ListenUnix(ctx, address, mode)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

// placeOf returns where a listener listens, as settings write it.
func placeOf(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return a.String()
}

// clientOf returns what a local client is called in logs, and at the outlet: its
// address, or who it is by the word of the kernel.
func clientOf(nc net.Conn) string {
	if nc.RemoteAddr().Network() == "unix" {
		return sock.PeerOf(nc)
	}
	return nc.RemoteAddr().String()
}
