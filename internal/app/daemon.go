package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"sync"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/console"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/systemd"
	"github.com/culvert-net/culvert/pkg/channel"
)

// A daemon is the part of a process that listens and runs.
type daemon struct {
	places []place
	view   view
	work   func(ctx context.Context) error
	// Of the admin server; see obs.Endpoints.
	more     map[string]http.Handler
	adminTLS *tls.Config
	// recheck asks again whether everything that lives is allowed, recheckSome
	// whether those channels are; nil: there is nothing to ask.
	recheck     func()
	recheckSome func(map[*channel.Channel]struct{})
	sockets     []*systemd.Socket // that the service manager has opened for this process

	lns       []net.Listener // Listen's, in the order of places
	endpoints *obs.Server    // nil before Listen
}

// listPlaces returns the places of a setting `listen`.
func listPlaces(addrs []config.Address) []place {
	places := make([]place, len(addrs))
	for i, a := range addrs {
		places[i] = place{key: listKey("listen", i, ""), addr: a}
	}
	return places
}

// listens says what the process is, for its constructor: where it listens, what
// it shows of itself, and what it does until its context ends.
func (b *base) listens(places []place, v view, work func(context.Context) error) {
	b.places, b.view, b.work = places, v, work
}

// Listen opens all listeners or none, so that their addresses are known before
// Run, which must follow it.
func (b *base) Listen(ctx context.Context) error {
	if err := assign(ctx, b.common, b.sockets, b.places); err != nil {
		return err
	}
	lns, err := b.listenAll(ctx, b.places)
	if err != nil {
		return err
	}
	endpoints, err := b.listenObs(ctx)
	if err != nil {
		closeAll(lns)
		return err
	}
	b.lns, b.endpoints = lns, endpoints
	return nil
}

// Addrs returns where the process listens, in the settings' order, once Listen
// was called.
func (b *base) Addrs() []net.Addr {
	list := make([]net.Addr, len(b.lns))
	for i, ln := range b.lns {
		list[i] = ln.Addr()
	}
	return list
}

// Endpoints returns what serves metrics and status, once Listen was called.
func (b *base) Endpoints() *obs.Server { return b.endpoints }

// Run listens, unless Listen was called before, and serves until ctx ends or a
// listener fails, which is its error. Then it lets what runs end, at most for the
// drain time, and returns when everything it started has ended.
func (b *base) Run(ctx context.Context) error {
	if b.endpoints == nil {
		if err := b.Listen(ctx); err != nil {
			return err
		}
	}
	b.confine()
	return b.serve(ctx, b.endpoints, b.work)
}

// listenAll listens at all places, or at none and says which cannot be had.
func (b *base) listenAll(ctx context.Context, places []place) ([]net.Listener, error) {
	var lns []net.Listener
	for _, p := range places {
		ln, err := b.listen(ctx, p)
		if err != nil {
			closeAll(lns)
			return nil, err
		}
		lns = append(lns, ln)
	}
	return lns, nil
}

// listen listens at p, at the socket that the service manager has opened for it if
// there is one, or says which setting names an address that cannot be had.
func (b *base) listen(ctx context.Context, p place) (net.Listener, error) {
	if s := p.socket; s != nil {
		b.log.Info("listening at a socket of the service manager", zap.String("socket", s.Name()), zap.Stringer("address", s.Addr()))
		return s.Listen()
	}
	ln, err := p.listen(ctx)
	if err != nil {
		return nil, cmp.Or(p.common, b.common).ListenError(p.key, b.beyond(err))
	}
	return ln, nil
}

func closeAll(lns []net.Listener) {
	for _, ln := range lns {
		_ = ln.Close()
	}
}

// listenObs opens the metrics and admin endpoints, the latter with the console.
func (b *base) listenObs(ctx context.Context) (*obs.Server, error) {
	more, err := console.Handlers()
	if err != nil {
		return nil, err
	}
	maps.Copy(more, b.more)
	s, err := b.obs.Listen(ctx, obs.Endpoints{
		Metrics:      b.common.Metrics.String(),
		Admin:        b.common.Admin,
		MetricsWhere: b.common.Where("metrics"),
		AdminWhere:   b.common.Where("admin"),
		Status:       b.view.answer,
		History:      b.view.history.show,
		More:         more,
		AdminTLS:     b.adminTLS,
	})
	if err != nil {
		return nil, err
	}
	if a := s.MetricsAddr(); a != nil {
		b.log.Info("serving metrics", zap.Stringer("address", a))
	}
	if a := s.AdminAddr(); a != nil {
		b.log.Info("serving admin", zap.Stringer("address", a))
	}
	return s, nil
}

// serve runs f, with the endpoints served from before it starts until after it
// has returned, so that a draining process can still be watched, and the log so
// that nothing waits for whoever reads it. An endpoint that fails ends f's
// context; its error and f's are serve's.
func (b *base) serve(ctx context.Context, endpoints *obs.Server, f func(ctx context.Context) error) error {
	logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	var logging sync.WaitGroup
	logging.Go(func() { b.obs.ServeLog(logCtx) })
	defer logging.Wait()
	defer stopLog()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	obsCtx, stopObs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopObs()
	var err error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		err = endpoints.Serve(obsCtx)
	})
	wg.Go(func() { tidy(obsCtx) })
	wg.Go(func() { b.view.history.run(obsCtx) })
	wg.Go(func() { b.supervise(ctx, obsCtx) })
	wg.Go(func() { b.file.watch(obsCtx) })
	var enrolling error
	b.keepUp(obsCtx, &wg, func(err error) {
		enrolling = err
		cancel() // nothing but another ticket helps
	})
	wg.Go(func() { b.tracer.Run(ctx, obsCtx) })
	working := f(ctx)
	stopObs()
	wg.Wait()
	return errors.Join(working, err, enrolling)
}

// keepUp starts what keeps the identity, the credential and the audit log, and asks
// again about what lives, until ctx ends. failed is told, once at most, that there will
// be no credential.
func (b *base) keepUp(ctx context.Context, wg *sync.WaitGroup, failed func(error)) {
	wg.Go(func() { b.keys.watch(ctx) })
	wg.Go(func() { b.keys.remember(ctx) })
	wg.Go(func() {
		if err := b.member.run(ctx); err != nil {
			failed(err)
		}
	})
	if b.recheck != nil {
		wg.Go(func() {
			b.trust.follow(ctx, func() {
				b.member.recheck()
				b.recheck()
			}, func(some map[*channel.Channel]struct{}) {
				b.member.recheck() // of one channel at most
				b.recheckSome(some)
			})
		})
	}
	wg.Go(func() { b.audit.Run(ctx) }) // until the last line of what works is written
}
