package app

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/channel"
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
	cfg            config.Inlet
	path           pathFunc
	find           findFunc
	slots          chan struct{} // local connections
	connectTimeout atomic.Int64  // how long a client waits for a channel, in ns
	carried        atomic.Int64  // those of services that are offered no more included

	offering inletOffering // what is offered, and what runs for it

	streams    *streamMetrics
	connects   *prometheus.CounterVec
	handshakes *handshakeMetrics
}

// An upstream leads to one outlet, or to several that are as good as each other: it is
// a link, or a balancer.
type upstream interface {
	// run keeps sessions until ctx ends or finish is called, and returns when
	// everything it started has ended.
	run(ctx context.Context)
	// finish has run return when the streams that there are have ended.
	finish()
	// reroute has other routes used from now on, the best first.
	reroute(routes []route.Route)
	// open opens a stream, and waits for a session until ctx ends. The session is to
	// be released when the stream has ended. The error is errFinished where there is
	// none any more since finish was called.
	open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, *held, error)
	// ready returns nil while a stream can be opened at once, else why not.
	ready() error
	// links returns the links that there are now.
	links() []*link
	way() way
}

// A pathFunc makes a live path to an outlet along a route, ready for the
// handshake with it, as [relay.Dialer.Path] does.
type pathFunc func(ctx context.Context, r route.Route, outlet identity.Identifier, instance *channel.Instance, address int) (net.Conn, error)

// NewInlet checks the settings and reads the identity. It listens nowhere yet.
func NewInlet(cfg *config.Inlet, o *obs.Obs) (*Inlet, error) {
	in, err := newInlet(cfg, o)
	if err != nil {
		return nil, err
	}
	places, err := in.offerFirst()
	if err != nil {
		return nil, err
	}
	in.listens(places, in.inletView(), in.work)
	return in, nil
}

// newInlet makes an inlet that offers nothing and listens nowhere.
func newInlet(cfg *config.Inlet, o *obs.Obs) (*Inlet, error) {
	in := &Inlet{cfg: *cfg, slots: make(chan struct{}, maxClients)}
	in.cfg.SetDefaults()
	var err error
	if in.base, err = newBase(&in.cfg.Common, &in.cfg.Channels, &in.cfg.Trust, nobody, o); err != nil {
		return nil, err
	}
	if err = in.openTracing(&in.cfg.Tracing, in.cfg.Name); err != nil {
		return nil, err
	}
	in.needs = inletFiles(&in.cfg)
	d := in.newDialer()
	in.path, in.find = d.Path, d.Find
	in.streams = newStreamMetrics(o.Registry, "inlet")
	in.connects = newCounterVec(o.Registry, "culvert_inlet_connects_total",
		"Attempts to reach an outlet over one route, for a channel or for another path of one, by result.", "result")
	in.connects.WithLabelValues("ok")
	in.handshakes = newHandshakeMetrics(o.Registry)
	newGauge(o.Registry, "culvert_inlet_channels", "Channels that are open.", in.countChannels)
	in.connectTimeout.Store(int64(in.cfg.ConnectTimeout))
	in.offering.begun = make(chan struct{})
	o.Registry.MustRegister(routeStates{in}, replicaCounts{in}, newChannelGauges("inlet", in.sessions))
	in.recheck, in.recheckSome = in.recheckAll, in.recheckChannels
	in.member.renewed = in.renewAll
	return in, nil
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

	r := &inletRun{in: in, linkCtx: linkCtx, streamCtx: streamCtx, openCtx: openCtx, acceptCtx: acceptCtx, fail: fail}
	in.begin(r)
	<-ctx.Done()
	// First, so that nobody is refused by a process that says it is ready.
	in.obs.Ready.Set("process", errShutdown)
	in.settle()
	stopAccepting()
	r.accepting.Wait()
	in.log.Info("stopping", zap.Int64("streams", in.countStreams()), zap.Duration("drain_timeout", in.drainTimeout()))
	waited := time.AfterFunc(lastWait, func() { giveUp(errShutdown) })
	defer waited.Stop()
	if done := ended(&r.clients); !waitFor(done, in.drainTimeout()) {
		in.log.Warn("drain time is over, cutting streams", zap.Int64("streams", in.countStreams()))
		cut(errShutdown)
		// Not for longer: without a path, what the channel does not take holds
		// its stream until the channel ends.
		waitFor(done, lastWait)
	}
	stopLinks(errShutdown)
	r.links.Wait()
	r.clients.Wait()
	in.log.Info("stopped")
	return r.failed()
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

// open opens a stream, and waits for a channel until the connect time-out.
// After a nil error the held session is to be released.
func (in *Inlet) open(ctx context.Context, s *inletService, o tunnel.Open) (*tunnel.Stream, *held, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(in.connectTimeout.Load()))
	defer cancel()
	st, h, err := s.open(ctx, o)
	for errors.Is(err, errFinished) {
		if s = in.successor(s); s == nil {
			err = &noChannelError{to: "the outlet of " + o.Service, last: errWithdrawn}
			break
		}
		st, h, err = s.open(ctx, o)
	}
	var none *noChannelError
	if errors.As(err, &none) {
		if why := in.member.awaited(); why != nil {
			err = &noChannelError{to: none.to, last: why}
		}
	}
	return st, h, err
}

func (in *Inlet) countStreams() int64 { return in.carried.Load() }

func (in *Inlet) countChannels() (n float64) {
	for _, l := range in.allLinks() {
		n += float64(l.count())
	}
	return n
}
