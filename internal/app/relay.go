package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// A Relay joins inlets to outlets and sees ciphertext only. It is made by
// [NewRelay] and started by [Relay.Run].
type Relay struct {
	*base
	cfg     config.Relay
	server  *relay.Server
	metrics *relayMetrics

	// What can come again and again is told apart by who can cause it, so that
	// none hides another: anybody at all, those with an identity, nobody else.
	toldHandshakes, toldRefusals, toldTroubles quiet

	lns       []net.Listener
	endpoints *obs.Server
}

// NewRelay checks the settings and reads the identity. It listens nowhere yet.
func NewRelay(cfg *config.Relay, o *obs.Obs) (*Relay, error) {
	r := &Relay{cfg: *cfg}
	r.cfg.SetDefaults()
	if len(r.cfg.Listen) == 0 {
		return nil, r.cfg.Fault("listen", errors.New("there is no address"))
	}
	var err error
	if r.base, err = newBase(&r.cfg.Common, nil, o); err != nil {
		return nil, err
	}
	lists, err := newRelayLists(r.cfg)
	if err != nil {
		return nil, err
	}
	l := r.cfg.Limits
	r.server, err = relay.NewServer(relay.Config{
		Local:    r.local,
		Register: lists.mayRegister,
		Connect:  lists.mayConnect,
		Extend:   lists.mayExtend,
		Limits: relay.Limits{
			Handshakes:               l.HandshakesInFlight,
			HandshakesPerSecond:      l.HandshakesPerSecond,
			Conns:                    l.Connections,
			ConnsPerIdentity:         l.ConnectionsPerIdentity,
			RegistrationsPerIdentity: l.RegistrationsPerIdentity,
			Waiting:                  l.WaitingCallers,
			BytesPerSecond:           l.BytesPerSecond,
		},
		Timing: relay.Timing{Dial: r.cfg.DialTimeout, UserTimeout: r.userTimeout()},
		Trace:  r.trace(),
	})
	if err != nil {
		return nil, fmt.Errorf("making the relay: %w", err)
	}
	r.metrics = newRelayMetrics(o.Registry, r.server)
	return r, nil
}

// relayLists say who may do what at a relay: those that are listed and nobody
// else.
type relayLists struct {
	register, connect map[identity.Identifier]bool
	extend            map[string]bool // canonical host:port
}

func newRelayLists(cfg config.Relay) (*relayLists, error) {
	l := &relayLists{map[identity.Identifier]bool{}, map[identity.Identifier]bool{}, map[string]bool{}}
	for _, id := range cfg.Register {
		l.register[id] = true
	}
	for _, id := range cfg.Connect {
		l.connect[id] = true
	}
	for i, a := range cfg.Extend {
		// The relay compares the spelling that routes have.
		host, port, err := route.ParseAddress(a.URL())
		if err != nil {
			return nil, cfg.Fault(listKey("extend", i, ""), err)
		}
		l.extend[route.Hop{Host: host, Port: port}.Address()] = true
	}
	return l, nil
}

func (l *relayLists) mayRegister(p channel.Peer) error {
	if !l.register[p.Identifier] {
		return fmt.Errorf("%s is not in this relay's register list", p.Identifier)
	}
	return nil
}

func (l *relayLists) mayConnect(p channel.Peer) error {
	if !l.connect[p.Identifier] {
		return fmt.Errorf("%s is not in this relay's connect list", p.Identifier)
	}
	return nil
}

// mayExtend lets those be carried on that may use this relay at all: an inlet
// on its way to an outlet's relay, or an outlet on its way to its own.
func (l *relayLists) mayExtend(p channel.Peer, address string) error {
	switch {
	case !l.connect[p.Identifier] && !l.register[p.Identifier]:
		return fmt.Errorf("%s is in neither the connect nor the register list of this relay", p.Identifier)
	case !l.extend[address]:
		return fmt.Errorf("%s is not in this relay's extend list", address)
	}
	return nil
}

// Identifier returns the relay's own identifier, which stands in routes.
func (r *Relay) Identifier() identity.Identifier { return r.id.Identifier() }

// Listen opens all listeners or none, so that their addresses are known before
// Run, which must follow it.
func (r *Relay) Listen(ctx context.Context) error {
	var places []place
	for i, a := range r.cfg.Listen {
		places = append(places, place{listKey("listen", i, ""), a})
	}
	var err error
	if r.lns, err = r.listenAll(ctx, places); err != nil {
		return err
	}
	if r.endpoints, err = r.listenObs(ctx, func() any { return r.Status() }); err != nil {
		closeAll(r.lns)
		r.lns = nil
	}
	return err
}

// Addrs returns where the relay listens, in the settings' order, once Listen
// was called.
func (r *Relay) Addrs() []net.Addr { return addrs(r.lns) }

// Endpoints returns what serves metrics and status, once Listen was called.
func (r *Relay) Endpoints() *obs.Server { return r.endpoints }

// Run listens, unless Listen was called before, and serves until ctx ends.
// Then it joins nobody any more, closes what is joined spread over the drain
// time, and returns when everything it started has ended.
func (r *Relay) Run(ctx context.Context) error {
	if r.lns == nil {
		if err := r.Listen(ctx); err != nil {
			return err
		}
	}
	return r.serve(ctx, r.endpoints, r.work)
}

// work serves until ctx ends or a listener fails, which is its error.
func (r *Relay) work(ctx context.Context) error {
	r.log.Info("relay started", zap.Stringer("identifier", r.id.Identifier()), zap.Stringer("instance", r.local.Instance()))
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	var serving sync.WaitGroup
	errs := make([]error, len(r.lns))
	for i, ln := range r.lns {
		r.log.Info("listening", zap.Stringer("address", ln.Addr()))
		serving.Go(func() {
			if err := r.server.Serve(serveCtx, ln); err != nil {
				errs[i] = fmt.Errorf("listener at %s: %w", ln.Addr(), err)
				r.log.Error("listener failed", zap.Stringer("address", ln.Addr()), zap.Error(err))
				fail()
			}
		})
	}
	r.obs.Ready.Set("relay", nil)
	<-ctx.Done()
	r.obs.Ready.Set("relay", errShutdown)
	r.log.Info("stopping", zap.Int("joins", r.server.Counts().Joins), zap.Duration("drain_timeout", r.cfg.DrainTimeout))
	began := time.Now()
	r.drain(ctx)
	stop()
	serving.Wait()
	r.log.Info("stopped", zap.Duration("duration", time.Since(began)))
	return errors.Join(errs...)
}

// drain refuses new joins and closes what is joined, spread over the drain
// time; with nothing joined it takes no time. ctx has ended already.
func (r *Relay) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.DrainTimeout+cutTime)
	defer cancel()
	if err := r.server.Drain(ctx, r.cfg.DrainTimeout); err != nil {
		r.log.Warn("drain time is over, cutting joins", zap.Error(err))
	}
}
