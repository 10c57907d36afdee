package app

import (
	"context"
	"io/fs"
	"net"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/systemd"
)

// A place is an address to listen at and the key path of its setting.
type place struct {
	service string // whose clients come there; "": others do
	key     string
	addr    config.Address
	mode    fs.FileMode     // of a unix socket; zero: config.DefaultListenMode
	common  *config.Common  // of the settings that name it; nil: those of the start
	socket  *systemd.Socket // that the service manager has opened for it; nil: this process listens itself
}

// isFor reports whether a place is where a service of other settings is to be listened
// for. Any free port is that of one service alone.
func (p *place) isFor(other place) bool {
	return p.addr == other.addr && (p.addr.Port != 0 || p.service == other.service)
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
