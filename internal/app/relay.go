package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/relay"
)

// A Relay joins inlets to outlets and sees ciphertext only. It is made by
// [NewRelay] and started by [Relay.Run].
type Relay struct {
	*base
	cfg     config.Relay
	policy  *RelayPolicy
	server  *relay.Server
	metrics *relayMetrics

	// What can come again and again is told apart by who can cause it, so that
	// none hides another: anybody at all, those with an identity, nobody else.
	toldHandshakes, toldRefusals, toldTroubles quiet
}

// NewRelay checks the settings and reads the identity. It listens nowhere yet.
func NewRelay(cfg *config.Relay, o *obs.Obs) (*Relay, error) {
	r := &Relay{cfg: *cfg}
	r.cfg.SetDefaults()
	if len(r.cfg.Listen) == 0 {
		return nil, r.cfg.Fault("listen", errors.New("there is no address"))
	}
	var err error
	if r.policy, err = NewRelayPolicy(&r.cfg); err != nil {
		return nil, err
	}
	if r.base, err = newBase(&r.cfg.Common, nil, &r.cfg.Trust, r.policy.knows, o); err != nil {
		return nil, err
	}
	r.trust.timed = r.policy.timed
	may := &relayGuard{r.policy, r.trust}
	l := r.cfg.Limits
	server := relay.Config{
		Local:    r.local,
		Register: may.mayRegister,
		Connect:  may.mayConnect,
		Extend:   may.mayExtend,
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
		Offers: may.offers,
		Trace:  r.trace(),
	}
	if r.audit != nil {
		server.Audit = r.auditGrant
	}
	if r.server, err = relay.NewServer(server); err != nil {
		return nil, fmt.Errorf("making the relay: %w", err)
	}
	r.metrics = newRelayMetrics(o.Registry, r.server)
	r.recheck, r.recheckSome = r.server.Recheck, func(map[*channel.Channel]struct{}) {} // a relay has none
	r.listens(listPlaces(r.cfg.Listen), r.relayView(), r.work)
	return r, nil
}

// work serves until ctx ends or a listener fails, which is its error. Then it
// joins nobody any more, closes what is joined spread over the drain time, and
// returns when everything it started has ended.
func (r *Relay) work(ctx context.Context) error {
	r.log.Info("relay started", zap.Stringer("identifier", r.Identifier()), zap.Stringer("instance", r.local.Instance()))
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
