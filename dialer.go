package culvert

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A DialerConfig says who a [Dialer] is, and where services are to be had. See [Config]
// for how it is read.
type DialerConfig struct {
	Config

	// Outlet is who must answer for the services that Services does not name. Zero: any
	// outlet whose credential says that it offers the service (service=NAME); then
	// there have to be Authorities, or a credential of the dialer's own.
	Outlet identity.Identifier
	// Routes are the ways to them, the best first, each a list of hops
	// "tcp://host:port/IDENTIFIER", joined by commas. Without Outlet the last hops are
	// relays, and all of them are asked who offers a service. The address of an outlet
	// that listens is a route, too. None: Services has all there are.
	Routes []string
	// Services are those that are to be had elsewhere, by name.
	Services map[string]Way

	// ConnectTimeout bounds each dial, beside its context. 1 ms to 24 h; 0: 10 s.
	ConnectTimeout time.Duration
	// Rekey is how old the keys of a channel become, give or take a tenth. 1 s to 24 h;
	// 0: 1 h.
	Rekey time.Duration
}

// A Way is where one service is to be had. Its fields are as those of [DialerConfig].
type Way struct {
	Outlet identity.Identifier
	Routes []string
}

// A Dialer dials services over channels that it keeps: one to each outlet, made with the
// first dial. It is safe for concurrent use, and is to be closed.
type Dialer struct {
	d  *app.Dialer
	id identity.Identifier
}

// NewDialer checks the config, reads the identity and, where there is one, the folder
// State. It starts nothing: the first dial does.
func NewDialer(cfg DialerConfig) (*Dialer, error) {
	var c checker
	in := &config.Inlet{
		ConnectTimeout: c.duration("ConnectTimeout", cfg.ConnectTimeout, config.MinTimeout, config.MaxTimeout),
		Rekey:          c.duration("Rekey", cfg.Rekey, config.MinRekey, config.MaxRekey),
	}
	in.Common, in.Channels, in.Trust = c.common(&cfg.Config)
	ways := c.ways(&cfg)
	if err := c.err("culvert: dialer's config"); err != nil {
		return nil, err
	}
	o := cfg.observed(config.KindInlet)
	d, err := app.NewDialer(in, ways.to, o)
	if err != nil {
		return nil, fmt.Errorf("culvert: dialer's config: %w", err)
	}
	if field := ways.byName(); field != "" && !d.Trusts() {
		err = fmt.Errorf("%s: there is none, and no authority whose credentials could say who offers the service: name the outlet, or say whose credentials count (Authorities, or a Ticket)", field)
	} else {
		d.Ended, err = cfg.register(o)
	}
	if err != nil {
		_ = d.Shutdown(context.Background()) // nothing runs but what that ends
		return nil, fmt.Errorf("culvert: dialer's config: %w", err)
	}
	return &Dialer{d: d, id: d.Identifier()}, nil
}

// ways are those of a config, by service; "" is for all others.
type ways map[string]config.InletService

// ways returns the config's.
func (c *checker) ways(cfg *DialerConfig) ways {
	all := ways{}
	add := func(service, prefix string, w Way) {
		all[service] = config.InletService{Service: service, Outlet: w.Outlet, Routes: c.routes(prefix+"Routes", w.Routes, w.Outlet)}
	}
	if len(cfg.Routes) > 0 {
		add("", "", Way{Outlet: cfg.Outlet, Routes: cfg.Routes})
	} else if !cfg.Outlet.IsZero() || len(cfg.Services) == 0 {
		c.fault("Routes", "there is none: say how to get to services (tcp://host:port/IDENTIFIER); the outlet's own address, if it listens, is a route, too")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Services)) {
		field := fmt.Sprintf("Services[%q]", name)
		if err := config.CheckService(name); err != nil {
			c.fault(field, "%w", err)
			continue
		}
		if len(cfg.Services[name].Routes) == 0 {
			c.fault(field+".Routes", "there is none: say how to get there")
		}
		add(name, field+".", cfg.Services[name])
	}
	return all
}

// byName returns the field of the config that would name an outlet and does not, "" if
// there is none.
func (w ways) byName() string {
	for _, name := range slices.Sorted(maps.Keys(w)) {
		s := w[name]
		switch {
		case !s.ByName():
		case name == "":
			return "Outlet"
		default:
			return fmt.Sprintf("Services[%q].Outlet", name)
		}
	}
	return ""
}

// to returns where a service is to be had.
func (w ways) to(service string) (config.InletService, error) {
	if err := config.CheckService(service); err != nil {
		return config.InletService{}, fmt.Errorf("there is no such service: %w", err)
	}
	if s, ok := w[service]; ok {
		return s, nil
	}
	s, ok := w[""]
	if !ok {
		return config.InletService{}, app.NoRoute(service, slices.Collect(maps.Keys(w)))
	}
	s.Service = service
	return s, nil
}

// Identifier returns the dialer's own identifier, by which outlets and relays know it.
func (d *Dialer) Identifier() identity.Identifier { return d.id }

// Dial opens a stream to a service, and returns when the outlet has accepted it. ctx
// bounds the call, and ConnectTimeout does; neither matters to the Conn. The error is a
// *[net.OpError] with an *[Error] in it; what a relay or the outlet has refused, on all
// routes, is told at once.
func (d *Dialer) Dial(ctx context.Context, service string) (*Conn, error) {
	c, failed := d.d.Dial(ctx, service, clientOf(ctx))
	if failed != nil {
		return nil, opError("dial", nil, &Addr{Service: code.Printable(service)}, asError(failed))
	}
	peer, _ := c.Who()
	return &Conn{
		c: c, local: &Addr{Identifier: d.id, Stream: c.ID()}, remote: &Addr{Identifier: peer.Identifier, Service: service},
	}, nil
}

// DialContext is Dial for what dials addresses, such as [net/http.Transport] and the
// dialers of gRPC and pgx: address is "service" or "service:port", of which the port
// says nothing, and network is "tcp", "tcp4", "tcp6" or "culvert".
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	service, err := serviceOf(network, address)
	if err != nil {
		return nil, opError("dial", nil, &Addr{Service: code.Printable(address)}, err)
	}
	c, err := d.Dial(ctx, service)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// serviceOf returns the service that an address names.
func serviceOf(net_, address string) (string, error) {
	switch net_ {
	case "tcp", "tcp4", "tcp6", network:
	default:
		return "", net.UnknownNetworkError(net_)
	}
	if !strings.Contains(address, ":") {
		return address, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || !strings.HasPrefix(address, host) { // no service stands in brackets
		return "", fmt.Errorf("%q is no address: want service or service:port", code.Printable(address))
	}
	return host, nil
}

// Shutdown has nothing more be dialled, waits until all Conns are closed, and returns
// when nothing of the dialer runs any more. When ctx ends, which is its error then, it
// aborts the Conns that are left, as Close does.
func (d *Dialer) Shutdown(ctx context.Context) error { return d.d.Shutdown(ctx) }

// Close ends the dialer: dials that are under way fail, Conns that are open are aborted
// (code shutdown), and what was written to those that are closed gets 2 s to arrive. It
// returns when nothing of the dialer runs any more. The error is why the dialer has
// ended before, if it has: its authority has refused to enrol it.
func (d *Dialer) Close() error { return d.d.Close() }

// Dial dials a service for once: it makes a [Dialer] for the one Conn, whose Close ends
// the dialer, too, and waits for that. Who dials more than once makes a Dialer.
func Dial(ctx context.Context, cfg DialerConfig, service string) (*Conn, error) {
	d, err := NewDialer(cfg)
	if err != nil {
		return nil, err
	}
	c, err := d.Dial(ctx, service)
	if err != nil {
		_ = d.Close() // err says more
		return nil, err
	}
	c.after = func() { _ = d.Close() } // it has opened the conn, so that nothing has failed
	return c, nil
}
