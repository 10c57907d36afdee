package app

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/target"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

const (
	// maxHandshakes bounds the handshakes that an outlet has under way.
	maxHandshakes = 256
	// handshakesPerSecond is how many an outlet that listens begins in a second,
	// unless the settings say otherwise.
	handshakesPerSecond = 500
	// handshakeWait bounds how long a conn from a relay waits for its turn.
	handshakeWait = 5 * time.Second
)

// An Outlet offers services to inlets: it registers at relays, listens, or
// both, and dials a service's target for each stream. It is made by
// [NewOutlet] and started by [Outlet.Run].
type Outlet struct {
	*base
	cfg      config.Outlet
	kind     string
	policy   *OutletPolicy
	handlers map[string]streamHandler // see hosting
	takes    takeFunc                 // see hosting
	hasten   context.Context          // ends the drain time early
	window   int                      // see hosting
	offered  atomic.Pointer[offer]
	channels *channels
	table    *channel.Table
	agents   agents
	dialer   *relay.Dialer
	slots    chan struct{} // handshakes under way
	turns    turns.Turns   // of those
	// maxStreams is how many streams one channel may have open; 0: as many as a
	// session takes.
	maxStreams int
	unanswered int           // see hosting
	rate       *rate.Limiter // of those with whom the outlet accepts itself: a relay has limits of its own

	// What can come again and again is told apart by who can cause it, so that
	// none hides another: anybody at all, those with an identity, those that may
	// use a service.
	toldHandshakes, toldStrangers, toldPeers quiet

	toldTargets quiet // what is wrong beside the targets, which peers do not cause

	carried    atomic.Int64 // streams to services, those that are offered no more included
	streams    *streamMetrics
	unknown    *serviceMetrics // streams to services that there are not
	handshakes *handshakeMetrics
	dial       func(ctx context.Context, network, address string) (net.Conn, error)

	dialTimeout atomic.Int64 // for dialling a target, in ns
}

// An outletService is a name and the target behind it. It does not change, but for
// its counts, which go over to the one that takes its place.
type outletService struct {
	config.OutletService
	address string         // Target's, as logs have it
	target  *target.Target // nil: this process serves it
	bounds  *serviceLimits
	handle  streamHandler // what serves it in this process; nil: the target does
	metrics *serviceMetrics
}

// NewOutlet checks the settings and reads the identity. It listens nowhere and
// registers nowhere yet.
func NewOutlet(cfg *config.Outlet, o *obs.Obs) (*Outlet, error) {
	out, err := newOutlet(cfg, hosting{}, o)
	if err != nil {
		return nil, err
	}
	out.listens(listPlaces(out.cfg.Listen), out.outletView(), out.work)
	return out, nil
}

// A hosting says what an outlet does for a service of this process's own. The
// zero hosting is for outlets that have none.
type hosting struct {
	kind     string                   // begins the names of metrics, and is what logs call the process; "": outlet
	handlers map[string]streamHandler // by service: what serves its streams, in the place of a target
	takes    takeFunc                 // what serves all other services, in the place of their targets; nil: nothing
	known    knowing                  // who is no stranger; nil: who may use a service
	bounds   *channelBounds           // nil: outletBounds
	streams  int                      // that one channel may have open; 0: as many as a session takes
	window   int                      // of each stream; see tunnel.Config

	unanswered int // streams of one channel that are not open; see tunnel.Config
}

// A streamHandler serves one stream and returns how that ended. It leaves
// closing the stream to its caller.
type streamHandler func(ctx context.Context, st *tunnel.Stream, peer channel.Peer) error

// newOutlet makes an outlet that knows everything but what it does when it runs.
func newOutlet(cfg *config.Outlet, h hosting, o *obs.Obs) (*Outlet, error) {
	h.kind = cmp.Or(h.kind, "outlet")
	out := &Outlet{cfg: *cfg, kind: h.kind, handlers: h.handlers, takes: h.takes, hasten: context.Background(), window: h.window, slots: make(chan struct{}, maxHandshakes)}
	out.cfg.SetDefaults()
	switch {
	case len(out.cfg.Services) == 0:
		return nil, out.cfg.Fault("services", errors.New("there are none"))
	case len(out.cfg.Relays)+len(out.cfg.Listen) == 0:
		return nil, out.cfg.Fault("relays", errors.New("nothing could reach this outlet: there are no relays and no listen addresses"))
	}
	out.policy = NewOutletPolicy(out.cfg.Services)
	if h.known == nil {
		h.known = out.policy.knows
	}
	var err error
	if out.base, err = newBase(&out.cfg.Common, &out.cfg.Channels, &out.cfg.Trust, h.known, o); err != nil {
		return nil, err
	}
	if err = out.openTracing(&out.cfg.Tracing, out.cfg.Name); err != nil {
		return nil, err
	}
	out.needs = outletFiles(&out.cfg)
	out.trust.timed = out.policy.timed
	out.rate = rate.NewLimiter(0, 0)
	out.limit(out.cfg.Limits)
	out.dialTimeout.Store(int64(out.cfg.DialTimeout))
	out.dial = new(net.Dialer).DialContext // whoever dials sets the time-out
	out.streams = newStreamMetrics(o.Registry, h.kind)
	out.unknown = out.streams.hold(unknownService)
	out.recheck, out.recheckSome = out.recheckAll, out.recheckChannels
	out.member.renewed = out.renewAll
	out.handshakes = newHandshakeMetrics(o.Registry)
	bounds := outletBounds()
	if h.bounds != nil {
		bounds = *h.bounds
	}
	out.maxStreams, out.unanswered = h.streams, h.unanswered
	out.table = channel.NewTable(out.channelSettings(&out.cfg.Channels, &channel.Trace{Lost: out.pathLost, Moved: out.pathMoved}), channel.Limits{Detached: bounds.all, DetachedPerInstance: maxPeerChannels})
	out.channels = newChannels(bounds, h.known, out.table.EvictOldest)
	out.channels.end = out.endStranger
	o.Registry.MustRegister(newChannelGauges(h.kind, out.sessions))
	newGauge(o.Registry, "culvert_"+h.kind+"_channels", "Channels that are open.", func() float64 { return float64(out.channels.count()) })
	newGauge(o.Registry, "culvert_"+h.kind+"_registrations", "Registrations at relays that are live.", func() float64 { return float64(out.countRegistrations()) })
	offered, err := out.offer(&out.cfg)
	if err != nil {
		return nil, err
	}
	out.exchangeOffer(offered)
	out.dialer, out.agents.begun = out.newDialer(), make(chan struct{})
	if out.agents.listed, err = out.newAgents(out.cfg.Relays); err != nil {
		return nil, err
	}
	return out, nil
}

// limit bounds what callers can make the outlet do.
func (out *Outlet) limit(l config.OutletLimits) {
	perSecond := cmp.Or(l.HandshakesPerSecond, handshakesPerSecond)
	out.rate.SetLimit(rate.Limit(perSecond))
	out.rate.SetBurst(perSecond)
}

// An offer is what an outlet offers. It does not change: another one takes its
// place.
type offer struct {
	services []*outletService // in the settings' order
	byName   map[string]*outletService
}

// offer returns the services of the settings. What is offered already keeps its
// counts.
func (out *Outlet) offer(cfg *config.Outlet) (*offer, error) {
	o, before := &offer{byName: map[string]*outletService{}}, out.offered.Load()
	for i, c := range cfg.Services {
		if o.byName[c.Name] != nil {
			return nil, cfg.Fault(listKey("services", i, "name"), errors.New("another service has this name already"))
		}
		s := &outletService{OutletService: c, address: c.Shown(), handle: out.handlers[c.Name]}
		if s.handle == nil && out.takes == nil {
			var err error
			if s.target, err = out.newTarget(cfg, i); err != nil {
				return nil, err
			}
		}
		if was := before.service(c.Name); was != nil {
			s.metrics, s.bounds = was.metrics, was.bounds
		} else {
			s.bounds = newServiceLimits(c.Name)
		}
		o.services, o.byName[c.Name] = append(o.services, s), s
	}
	return o, nil
}

// exchangeOffer makes o what is offered.
func (out *Outlet) exchangeOffer(o *offer) {
	before := out.offered.Load()
	for _, s := range o.services {
		if before.service(s.Name) == nil {
			s.metrics = out.streams.hold(s.Name)
		}
	}
	o.inForce()
	out.offered.Store(o)
	if before == nil {
		return
	}
	for _, s := range before.services {
		if o.service(s.Name) == nil {
			out.streams.release(s.metrics)
		}
	}
}

// enter returns the service of that name, nil if there is none. Its metrics are
// retained: whoever enters releases them.
func (out *Outlet) enter(name string) *outletService {
	for {
		if s := out.offered.Load().service(name); s == nil || out.streams.retain(s.metrics) {
			return s
		}
	}
}

// service returns the service of that name, or nil. o may be nil.
func (o *offer) service(name string) *outletService {
	if o == nil {
		return nil
	}
	return o.byName[name]
}

// work serves until ctx ends or a listener fails. Then it asks inlets to open no
// more streams here, gives streams the drain time to end, closes the channels,
// and returns when everything it started has ended.
func (out *Outlet) work(ctx context.Context) error {
	out.log.Info(out.kind+" started", zap.Stringer("identifier", out.Identifier()), zap.Stringer("instance", out.local.Instance()))
	// Conns and registrations outlive ctx for the drain time.
	liveCtx, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errShutdown)
	acceptCtx, stopAccepting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAccepting()
	ctx, fail := context.WithCancel(ctx)
	defer fail()

	var accepting, conns sync.WaitGroup
	errs := make([]error, len(out.lns))
	agents := out.beginAgents(liveCtx)
	for i, ln := range out.lns {
		out.log.Info("listening", zap.Stringer("address", ln.Addr()))
		a := &acceptor{ln: ln, slots: out.slots, turns: &out.turns, rate: out.rate, log: out.log, start: conns.Go, handle: func(nc net.Conn, free func()) {
			out.serveConn(liveCtx, nc, "", nil, free)
		}}
		accepting.Go(func() {
			if errs[i] = a.run(acceptCtx); errs[i] != nil {
				fail()
			}
		})
	}
	out.setReady()
	<-ctx.Done()
	// First, so that nobody is refused by a process that says it is ready.
	out.obs.Ready.Set("process", errShutdown)
	out.agents.drain()
	out.log.Info("stopping", zap.Int64("streams", out.countStreams()), zap.Duration("drain_timeout", out.drainTimeout()))
	out.channels.drain("the " + out.kind + " is stopping")
	if !out.drained(ctx) {
		out.log.Warn("drain time is over, cutting streams", zap.Int64("streams", out.countStreams()))
	}
	// Not before: channels come here for their next path, as by the relays. New
	// ones are refused.
	stopAccepting()
	accepting.Wait()
	cut(errShutdown)
	conns.Wait()
	agents.running.Wait()
	out.log.Info("stopped")
	return errors.Join(errs...)
}

func (out *Outlet) countStreams() int64 { return out.carried.Load() }

// drained waits for the drain time at most until no streams are left, and
// reports whether that is so. Inlets close their channels when their last
// streams here end; where one does not, a moment without streams is enough.
func (out *Outlet) drained(ctx context.Context) bool {
	const enough, look = 500 * time.Millisecond, 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), out.drainTimeout())
	defer cancel()
	defer context.AfterFunc(out.hasten, cancel)()
	for quiet := time.Duration(0); quiet < enough && out.channels.count() > 0; quiet += look {
		if out.countStreams() > 0 {
			quiet = 0
		}
		if !wait.Sleep(ctx, look) {
			break
		}
	}
	return out.countStreams() == 0
}
