package culvert

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

// A ListenerConfig says who a [Listener] is, what it offers, to whom, and where. See
// [Config] for how it is read.
type ListenerConfig struct {
	Config

	// Service is the name that dialers ask for: a to z, 0 to 9 and, inside, hyphens, at
	// most 63.
	Service string
	// Allow are those who may use the service. Exactly one of it and AllowIf is set: a
	// service that nobody may use is a mistake.
	Allow []identity.Identifier
	// AllowIf is an expression that is true for those who may (package policy), such as
	// peer.attr.role == "api".
	AllowIf string

	// Relays are the routes to the relays where the service can be reached; it registers
	// at the last hop of each. They are as those of [DialerConfig].
	Relays []string
	// Listen are addresses "host:port" at which dialers that reach the program itself
	// come without a relay; port 0 takes a free one. There have to be some, or Relays.
	Listen []string

	// MaxConns is how many Conns may be open, accepted or waiting for that; one more is
	// refused (limit). 0: as many as come, 10,000 a channel.
	MaxConns int
	// IdleTimeout is after what time a Conn is reset, at both ends (idle_timeout), on
	// which no byte has moved at either. 1 s to 24 h; 0: none is.
	IdleTimeout time.Duration
	// BytesPerSecond is how fast all Conns together may be, in each direction: a Write
	// of more waits, and so does a Read. At least 1 KiB; 0: as fast as may be.
	BytesPerSecond int64
	// More are further services of the same identity, of which [Listener.Of] returns the
	// listeners. Programs that offer different services have identities of their own:
	// dialers come to any that has the identity.
	More []Service
	// HandshakesPerSecond bounds what all who come to Listen can have the program do,
	// with a burst of one second's worth. 0: 500.
	HandshakesPerSecond int
}

// A Service is one that is offered beside another. Its fields are as those of
// [ListenerConfig].
type Service struct {
	Name    string
	Allow   []identity.Identifier
	AllowIf string

	MaxConns       int
	IdleTimeout    time.Duration
	BytesPerSecond int64
}

// A Listener is a [net.Listener] for a service. It is safe for concurrent use, and is to
// be closed.
type Listener struct {
	*hosting
	addr *Addr
}

// A hosting is what the listeners of one Listen share.
type hosting struct {
	h         *app.Host
	listeners map[string]*Listener // by service; not written
}

var _ net.Listener = (*Listener)(nil)

// Listen offers a service. It returns when dialers can reach it: when a relay has
// registered it, or it listens itself. ctx bounds the call and does not matter to the
// Listener. Where a relay does not answer Listen goes on trying, until ctx ends; where
// none lets the program register, its *[Error] says so at once.
func Listen(ctx context.Context, cfg ListenerConfig) (*Listener, error) {
	var c checker
	out := &config.Outlet{Limits: config.OutletLimits{HandshakesPerSecond: cfg.HandshakesPerSecond}}
	out.Common, out.Channels, out.Trust = c.common(&cfg.Config)
	out.Services = []config.OutletService{c.service("", Service{
		Name: cfg.Service, Allow: cfg.Allow, AllowIf: cfg.AllowIf,
		MaxConns: cfg.MaxConns, IdleTimeout: cfg.IdleTimeout, BytesPerSecond: cfg.BytesPerSecond,
	})}
	for i, s := range cfg.More {
		prefix := fmt.Sprintf("More[%d].", i)
		if slices.ContainsFunc(out.Services, func(other config.OutletService) bool { return other.Name == s.Name }) {
			c.fault(prefix+"Name", "there is another service %q", s.Name)
		}
		out.Services = append(out.Services, c.service(prefix, s))
	}
	out.Relays = c.routes("Relays", cfg.Relays, identity.Identifier{})
	for i, text := range cfg.Listen {
		a, err := config.ParseListen(text)
		if err != nil {
			c.fault(fmt.Sprintf("Listen[%d]", i), "%w", err)
		}
		out.Listen = append(out.Listen, a)
	}
	if len(cfg.Relays)+len(cfg.Listen) == 0 {
		c.fault("Relays", "nothing could reach the service: write a relay's route, or an address in Listen")
	}
	if cfg.HandshakesPerSecond < 0 {
		c.fault("HandshakesPerSecond", "%d: want more than 0, or 0 for the default", cfg.HandshakesPerSecond)
	}
	if err := c.err("culvert: listener's config"); err != nil {
		return nil, err
	}
	o := cfg.observed(config.KindOutlet)
	h, err := app.NewHost(out, o)
	if err != nil {
		return nil, fmt.Errorf("culvert: listener's config: %w", err)
	}
	all := &hosting{h: h, listeners: map[string]*Listener{}}
	for _, s := range out.Services {
		all.listeners[s.Name] = &Listener{all, &Addr{Identifier: h.Identifier(), Service: s.Name}}
	}
	l := all.listeners[cfg.Service]
	h.Ended, err = cfg.register(o)
	if err != nil {
		_ = l.Shutdown(ended()) // nothing runs but what that ends
		return nil, fmt.Errorf("culvert: listener's config: %w", err)
	}
	if err = h.Start(ctx); err == nil {
		err = h.Reach(ctx)
	}
	if err != nil {
		_ = l.Shutdown(ended()) // err says more
		return nil, opError("listen", nil, l.addr, asError(err))
	}
	return l, nil
}

// ended returns a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// service returns what is offered; prefix begins the names of its fields.
func (c *checker) service(prefix string, cfg Service) (s config.OutletService) {
	s.Name = cfg.Name
	if err := config.CheckService(cfg.Name); err != nil {
		field := prefix + "Name"
		if prefix == "" {
			field = "Service"
		}
		c.fault(field, "%w", err)
	}
	switch {
	case len(cfg.Allow) > 0 && cfg.AllowIf != "":
		c.fault(prefix+"AllowIf", "Allow is set, too: set one of them")
	case cfg.AllowIf != "":
		var err error
		if s.Allow, err = policy.Compile(policy.Open, cfg.AllowIf); err != nil {
			c.fault(prefix+"AllowIf", "%w", err)
		}
	case len(cfg.Allow) == 0:
		c.fault(prefix+"Allow", "nobody could use the service: list who may, or say so in AllowIf")
	default:
		c.identifiers(prefix+"Allow", cfg.Allow)
		s.Allow = policy.List(cfg.Allow...)
	}
	s.Limits = c.limits(prefix, &cfg)
	return s
}

// limits returns what bounds a service's Conns.
func (c *checker) limits(prefix string, s *Service) config.ServiceLimits {
	if s.MaxConns < 0 {
		c.fault(prefix+"MaxConns", "%d: want more than 0, or 0 for no limit", s.MaxConns)
	}
	if s.BytesPerSecond != 0 && s.BytesPerSecond < config.MinRate {
		c.fault(prefix+"BytesPerSecond", "%d: want at least %d, or 0 for no limit", s.BytesPerSecond, config.MinRate)
	}
	return config.ServiceLimits{
		Connections: s.MaxConns, BytesPerSecond: s.BytesPerSecond,
		IdleTimeout: c.duration(prefix+"IdleTimeout", s.IdleTimeout, config.MinIdle, config.MaxTimeout),
	}
}

// Of returns the listener of another service of the same config, nil if there is none.
func (l *Listener) Of(service string) *Listener { return l.listeners[service] }

// Accept is AcceptConn for those who need no more than a [net.Conn].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn returns the next Conn: of a peer that may use the service, and has not gone
// meanwhile. Up to 128 wait for it, and more are refused (busy). The error is within a
// *[net.OpError]: [net.ErrClosed] after Close, else an *[Error] that says why the
// listener has ended.
func (l *Listener) AcceptConn() (*Conn, error) {
	c, err := l.h.Accept(l.addr.Service)
	if err != nil {
		return nil, opError("accept", nil, l.addr, asError(err))
	}
	peer, _ := c.Who()
	return &Conn{c: c, local: l.addr, remote: &Addr{Identifier: peer.Identifier, Stream: c.ID()}}, nil
}

// Addr returns the listener's identifier and service, as an *[Addr].
func (l *Listener) Addr() net.Addr { return l.addr }

// Identifier returns the listener's own identifier, which dialers name as the outlet.
func (l *Listener) Identifier() identity.Identifier { return l.addr.Identifier }

// Routes returns the routes by which the service can be reached, for [DialerConfig]:
// those of Relays, and one for each address of Listen that says where it is.
func (l *Listener) Routes() []string {
	var texts []string
	for _, r := range l.h.Ways() {
		texts = append(texts, r.String())
	}
	return texts
}

// Close has no more Conns of this service be accepted; those that wait for that are
// reset. Conns that were accepted go on, as those of other listeners do, and so do the
// other services: what runs for all of them ends when each is closed, and the Conns
// are. It returns at once; Shutdown waits.
func (l *Listener) Close() error {
	l.h.CloseService(l.addr.Service)
	return nil
}

// Shutdown closes the listeners of all services of one Listen, and returns when all
// their Conns are closed and nothing of them runs any more. When ctx ends, which is its
// error then, it aborts the Conns that are left (code shutdown); a ctx that has ended
// already is how to do so at once.
func (l *Listener) Shutdown(ctx context.Context) error { return l.h.Shutdown(ctx) }
