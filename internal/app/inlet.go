package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// maxClients bounds the local connections of an inlet, all services together.
const maxClients = 10_000

// An Inlet accepts plain local connections and carries each in a stream to an
// outlet. It is made by [NewInlet] and started by [Inlet.Run].
type Inlet struct {
	*base
	cfg      config.Inlet
	path     pathFunc
	find     findFunc
	services []*inletService
	links    []*inletLink // to outlets that the settings name
	// balancers are those of the services that any outlet may offer.
	balancers []*balancer
	slots     chan struct{}

	streams    *streamMetrics
	connects   *prometheus.CounterVec
	handshakes *handshakeMetrics
}

// An inletService is a local listener and where its clients are carried to.
type inletService struct {
	config.InletService
	upstream upstream
	metrics  *serviceMetrics
	streams  atomic.Int64
}

// An upstream leads to one outlet, or to several that are as good as each other.
type upstream interface {
	// open opens a stream, and waits for a session until ctx ends. The session is to
	// be released when the stream has ended.
	open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, *held, error)
	// ready returns nil while a stream can be opened at once, else why not.
	ready() error
}

// A pathFunc makes a live path to an outlet along a route, ready for the
// handshake with it, as [relay.Dialer.Path] does.
type pathFunc func(ctx context.Context, r route.Route, outlet identity.Identifier, instance *channel.Instance, address int) (net.Conn, error)

// NewInlet checks the settings and reads the identity. It listens nowhere yet.
func NewInlet(cfg *config.Inlet, o *obs.Obs) (*Inlet, error) {
	in := &Inlet{cfg: *cfg, slots: make(chan struct{}, maxClients)}
	in.cfg.SetDefaults()
	if len(in.cfg.Services) == 0 {
		return nil, in.cfg.Fault("services", errors.New("there are none"))
	}
	var err error
	if in.base, err = newBase(&in.cfg.Common, &in.cfg.Channels, &in.cfg.Trust, nobody, o); err != nil {
		return nil, err
	}
	d := in.newDialer()
	in.path, in.find = d.Path, d.Find
	in.streams = newStreamMetrics(o.Registry, "inlet")
	in.connects = newCounterVec(o.Registry, "culvert_inlet_connects_total",
		"Attempts to reach an outlet over one route, for a channel or for another path of one, by result.", "result")
	in.connects.WithLabelValues("ok")
	in.handshakes = newHandshakeMetrics(o.Registry)
	newGauge(o.Registry, "culvert_inlet_channels", "Channels that are open.", in.countChannels)
	if err := in.newServices(); err != nil {
		return nil, err
	}
	o.Registry.MustRegister(routeStates{in}, replicaCounts{in})
	in.recheck, in.recheckSome = in.recheckAll, in.recheckChannels
	in.member.renewed = in.renewAll
	var places []place
	for i, s := range in.services {
		places = append(places, place{listKey("services", i, "listen"), s.Listen})
	}
	in.listens(places, in.inletView(), in.work)
	return in, nil
}

// newServices makes what the services' clients are carried by: services that lead to
// the same outlet, or to any that offers one name, over the same routes share it.
func (in *Inlet) newServices() error {
	byWay := map[string]upstream{}
	for i, c := range in.cfg.Services {
		way := c.Outlet.String()
		if c.ByName() {
			way = "any of " + c.Service // which no identifier begins with
		}
		for _, r := range c.Routes {
			way += " " + r.String()
		}
		switch {
		case byWay[way] != nil:
		case !c.ByName():
			l := in.newLink(c.Outlet, c.Routes)
			in.links = append(in.links, l)
			byWay[way] = l
		case !in.trust.enabled.Load():
			return noAuthority(&in.cfg, i)
		default:
			b := in.newBalancer(c.Service, c.Routes)
			in.balancers = append(in.balancers, b)
			byWay[way] = b
		}
		in.services = append(in.services, &inletService{InletService: c, upstream: byWay[way], metrics: in.streams.serviceAt(c.Service, c.Listen.String())})
	}
	return nil
}

// noAuthority says that nobody could say who offers a service of the settings.
func noAuthority(cfg *config.Inlet, i int) error {
	return cfg.Fault(listKey("services", i, "outlet"), errors.New("there is none, and no authority whose credentials could say who offers the service: "+
		"name the outlet, or say whose credentials count (authorities, or a ticket)"))
}

// allLinks returns the links to outlets that the settings name, and to replicas.
func (in *Inlet) allLinks() []*link {
	var all []*link
	for _, l := range in.links {
		all = append(all, l.link)
	}
	for _, b := range in.balancers {
		all = append(all, b.links()...)
	}
	return all
}

// work serves until ctx ends or a listener fails. Then it accepts no more, sends
// clients away that get no stream within a moment, gives streams the drain time
// to end, closes the channels, and returns when everything it started has ended.
func (in *Inlet) work(ctx context.Context) error {
	in.log.Info("inlet started", zap.Stringer("identifier", in.Identifier()), zap.Stringer("instance", in.local.Instance()))
	linkCtx, stopLinks := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopLinks(errShutdown)
	streamCtx, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errShutdown)
	openCtx, giveUp := context.WithCancelCause(streamCtx)
	defer giveUp(errShutdown)
	acceptCtx, stopAccepting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAccepting()
	ctx, fail := context.WithCancel(ctx)
	defer fail()

	var links, accepting, clients sync.WaitGroup
	errs := make([]error, len(in.lns))
	for _, l := range in.links {
		links.Go(func() {
			in.member.await(linkCtx)
			l.run(linkCtx)
		})
	}
	for _, b := range in.balancers {
		links.Go(func() {
			in.member.await(linkCtx)
			b.run(linkCtx)
		})
	}
	for i, s := range in.services {
		in.log.Info("listening", zap.String("service", s.Service), zap.Stringer("address", in.lns[i].Addr()), zap.String("outlet", s.outlet()))
		a := &acceptor{ln: in.lns[i], slots: in.slots, log: in.log, start: clients.Go, handle: func(nc net.Conn, free func()) {
			defer free()
			in.serveClient(openCtx, streamCtx, s, nc.(*net.TCPConn))
		}}
		accepting.Go(func() {
			if errs[i] = a.run(acceptCtx); errs[i] != nil {
				fail()
			}
		})
	}
	in.setReady()
	<-ctx.Done()
	// First, so that nobody is refused by a process that says it is ready.
	in.obs.Ready.Set("process", errShutdown)
	stopAccepting()
	accepting.Wait()
	in.log.Info("stopping", zap.Int64("streams", in.countStreams()), zap.Duration("drain_timeout", in.cfg.DrainTimeout))
	waited := time.AfterFunc(lastWait, func() { giveUp(errShutdown) })
	defer waited.Stop()
	if done := ended(&clients); !waitFor(done, in.cfg.DrainTimeout) {
		in.log.Warn("drain time is over, cutting streams", zap.Int64("streams", in.countStreams()))
		cut(errShutdown)
		// Not for longer: without a path, what the channel does not take holds
		// its stream until the channel ends.
		waitFor(done, lastWait)
	}
	stopLinks(errShutdown)
	links.Wait()
	clients.Wait()
	in.log.Info("stopped")
	return errors.Join(errs...)
}

// setReady makes one check for each service's name.
func (in *Inlet) setReady() {
	upstreams := map[string][]upstream{}
	for _, s := range in.services {
		upstreams[s.Service] = append(upstreams[s.Service], s.upstream)
	}
	for name, us := range upstreams {
		in.obs.Ready.SetFunc(obs.ServiceCheck(name), func() error {
			for _, u := range us {
				if err := u.ready(); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// serveClient carries one local connection: until ctx ends, with a stream that
// has to be there before opening ends. Whatever goes wrong, the client sees a
// reset, never a clean end.
func (in *Inlet) serveClient(opening, ctx context.Context, s *inletService, nc *net.TCPConn) {
	began := time.Now()
	abortive(nc)
	s.streams.Add(1)
	client := nc.RemoteAddr().String()
	live := &liveStream{service: s.Service, client: client, since: began, peer: s.Outlet}
	in.streams.table.begin(live, s.metrics.count)
	if ce := in.log.Check(zapcore.DebugLevel, "client connected"); ce != nil {
		ce.Write(zap.String("service", s.Service), zap.String("client", client))
	}
	outlet, e := in.carry(opening, ctx, s, nc, live)
	in.streams.table.end(live)
	s.streams.Add(-1)
	s.metrics.ended(e)
	in.logEnd(e, time.Since(began), &streamName{s.Service, outlet, client})
}

// carry returns the outlet, as far as there was one, beside the end.
func (in *Inlet) carry(opening, ctx context.Context, s *inletService, nc *net.TCPConn, live *liveStream) (identity.Identifier, streamEnd) {
	client := live.client
	if err := in.audit.Ready(); err != nil { // before the outlet hears of it
		_ = sock.ResetClose(nc)
		e := streamEnd{label: code.AuditFailed.String(), reason: err.Error()}
		in.auditUnopened(s, s.Outlet, client, e)
		return s.Outlet, e
	}
	st, h, err := in.open(opening, s, tunnel.Open{Service: s.Service, ClientAddress: client})
	if err != nil {
		_ = sock.ResetClose(nc) // the client is given up either way
		outlet, e := outletOf(err, s.Outlet), openEnd(opening, err)
		in.auditUnopened(s, outlet, client, e)
		return outlet, e
	}
	defer h.release()
	s.metrics.waited(live.since)
	in.streams.table.carries(live, h.session.(*lasting).ch, st)
	outlet := h.link.outlet
	a, err := in.auditOpened(s, client, st, h)
	if err != nil {
		_ = st.Reset(code.AuditFailed)
		_ = sock.ResetClose(nc)
		return outlet, streamEnd{label: code.AuditFailed.String(), reason: err.Error()}
	}
	e := copyStream(ctx, nc, st, code.ClientReset)
	in.auditClosed(a, e)
	return outlet, e
}

// outletOf returns the outlet that err is about: the only one there is, or the one
// of several that was chosen.
func outletOf(err error, only identity.Identifier) identity.Identifier {
	var at *replicaError
	var none *noChannelError
	if !errors.As(err, &none) && errors.As(err, &at) {
		return at.outlet
	}
	return only
}

// outlet says for people whose the service is.
func (s *inletService) outlet() string {
	if s.ByName() {
		return "any that proves to offer it"
	}
	return s.Outlet.String()
}

// open opens a stream, and waits for a channel until the connect time-out.
// After a nil error the held session is to be released.
func (in *Inlet) open(ctx context.Context, s *inletService, o tunnel.Open) (*tunnel.Stream, *held, error) {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.ConnectTimeout)
	defer cancel()
	st, h, err := s.upstream.open(ctx, o)
	var none *noChannelError
	if errors.As(err, &none) {
		if why := in.member.awaited(); why != nil {
			err = &noChannelError{to: none.to, last: why}
		}
	}
	return st, h, err
}

func (in *Inlet) countStreams() (n int64) {
	for _, s := range in.services {
		n += s.streams.Load()
	}
	return n
}

func (in *Inlet) countChannels() (n float64) {
	for _, l := range in.allLinks() {
		n += float64(l.count())
	}
	return n
}
