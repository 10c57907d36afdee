package app

import (
	"crypto/tls"
	"errors"
	"net/netip"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/target"
)

// newTarget returns what is behind a service of the settings.
func (out *Outlet) newTarget(cfg *config.Outlet, i int) (*target.Target, error) {
	c := &cfg.Services[i]
	tc := target.Config{ProxyProtocol: c.ProxyProtocol, Stale: func(err error) {
		out.quietly(&out.toldTargets, zapcore.ErrorLevel, "files of a target have changed and cannot be taken, what they held before counts", c.Name+err.Error(),
			zap.String("service", c.Name), zap.Error(err))
	}}
	tc.Network, tc.Address = c.Target.Net()
	if s := c.TLS; s != nil {
		tc.TLS = &target.TLS{CAFile: s.CAFile, ServerName: s.ServerName, CertFile: s.CertFile, KeyFile: s.KeyFile, MinVersion: tls.VersionTLS12}
		if s.MinVersion == "1.3" {
			tc.TLS.MinVersion = tls.VersionTLS13
		}
	}
	t, err := target.New(&tc)
	var at *target.SettingError
	if errors.As(err, &at) {
		return nil, cfg.Fault(listKey("services", i, at.Key), at.Err)
	}
	return t, err
}

// caller returns what the target is told of who calls.
func (p *served) caller() *target.Caller {
	if p.service.ProxyProtocol == 0 {
		return nil
	}
	peer := p.req.Peer()
	c := &target.Caller{
		Service: p.service.Name, Peer: peer.Identifier.String(), Name: peer.Name,
		Stream: streamID(p.ch.session.ch.ID(), p.req.StreamID()),
	}
	if p.service.TrustClientAddress {
		c.Address = target.ParseClient(p.req.ClientAddress)
	} else {
		c.Address = p.ch.peerAddress()
	}
	return c
}

// peerAddress returns where the channel's path comes from, if that is the peer itself:
// the peer says that it has this address, and so does the socket. The other end of a
// connection that this outlet has made to a relay is the relay, whatever a peer says.
func (ch *openChannel) peerAddress() netip.AddrPort {
	st := ch.session.ch.State()
	if st.Via != "" {
		return netip.AddrPort{}
	}
	return st.PeerAddr
}

// inForce puts the limits of what is offered into force.
func (o *offer) inForce() {
	for _, s := range o.services {
		s.bounds.set(s.Limits)
	}
}
