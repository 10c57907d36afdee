package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
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

	lns       []net.Listener // Listen's, in the order of places
	endpoints *obs.Server    // nil before Listen
}

// A place is an address to listen at and the key path of its setting.
type place struct {
	key  string
	addr config.Address
}

// listPlaces returns the places of a setting `listen`.
func listPlaces(addrs []config.Address) []place {
	places := make([]place, len(addrs))
	for i, a := range addrs {
		places[i] = place{listKey("listen", i, ""), a}
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

// listen listens at p, or says which setting names an address that cannot be had.
func (b *base) listen(ctx context.Context, p place) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", p.addr.String())
	if err != nil {
		return nil, b.common.ListenError(p.key, err)
	}
	return ln, nil
}

func closeAll(lns []net.Listener) {
	for _, ln := range lns {
		_ = ln.Close()
	}
}

// listenObs opens the metrics and admin endpoints.
func (b *base) listenObs(ctx context.Context) (*obs.Server, error) {
	s, err := b.obs.Listen(ctx, obs.Endpoints{
		Metrics:      b.common.Metrics.String(),
		Admin:        b.common.Admin,
		MetricsWhere: b.common.Where("metrics"),
		AdminWhere:   b.common.Where("admin"),
		Status:       b.view.answer,
		History:      b.view.history.show,
		More:         b.more,
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
	wg.Go(func() { b.keys.watch(obsCtx) })
	wg.Go(func() { b.keys.remember(obsCtx) })
	wg.Go(func() { b.file.watch(obsCtx) })
	var enrolling error
	wg.Go(func() {
		if enrolling = b.member.run(obsCtx); enrolling != nil {
			cancel() // nothing but another ticket helps
		}
	})
	if b.recheck != nil {
		wg.Go(func() {
			b.trust.follow(obsCtx, func() {
				b.member.recheck()
				b.recheck()
			}, func(some map[*channel.Channel]struct{}) {
				b.member.recheck() // of one channel at most
				b.recheckSome(some)
			})
		})
	}
	wg.Go(func() { b.audit.Run(obsCtx) }) // until f's last line is written
	working := f(ctx)
	stopObs()
	wg.Wait()
	return errors.Join(working, err, enrolling)
}
