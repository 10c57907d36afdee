package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// hostBacklog bounds the streams of a host's service that are open and wait for its
// program.
const hostBacklog = 128

// reachLook is how often a host that is to be reached looks whether it can be.
const reachLook = 20 * time.Millisecond

// A takeFunc serves a stream for whose service there is no target, and returns how it
// ended.
type takeFunc func(ctx context.Context, p *served) streamEnd

// A Host is an outlet whose program serves the streams itself. It is made by
// [NewHost] and started by [Host.Start]; [Host.Close] has it end when the program has
// done with its streams.
type Host struct {
	*Outlet
	// Ended is called when nothing runs any more; nil for nothing. Set before Start.
	Ended func()

	life    context.Context // streams are taken; its cause says why not any more
	refuse  context.CancelCauseFunc
	run     context.Context // the work, before its drain
	stop    context.CancelFunc
	cutAll  context.CancelFunc // ends the drain
	started sync.Once
	done    chan struct{} // closed when nothing runs any more
	err     error         // why it has ended by itself; read after done

	hosted map[string]*hostedService // by name; not written
}

// A hostedService is one that the program serves.
type hostedService struct {
	life     context.Context // as the host's, for this service alone
	refuse   context.CancelCauseFunc
	waiting  chan struct{} // a slot for each stream that waits for the program
	incoming chan *Carried
}

// NewHost checks the settings and reads the identity. It starts nothing.
func NewHost(cfg *config.Outlet, o *obs.Obs) (*Host, error) {
	h := &Host{done: make(chan struct{}), hosted: map[string]*hostedService{}}
	var err error
	if h.Outlet, err = newOutlet(cfg, hosting{takes: h.take}, o); err != nil {
		return nil, err
	}
	h.listens(listPlaces(h.cfg.Listen), h.outletView(), h.work)
	h.life, h.refuse = context.WithCancelCause(context.Background())
	for _, s := range h.cfg.Services {
		life, refuse := context.WithCancelCause(h.life)
		h.hosted[s.Name] = &hostedService{life, refuse, make(chan struct{}, hostBacklog), make(chan *Carried)}
		h.offered.Load().service(s.Name).bounds.setting = "MaxConns"
	}
	h.run, h.stop = context.WithCancel(context.Background())
	h.hasten, h.cutAll = context.WithCancel(context.Background())
	h.draining.Store(math.MaxInt64) // until cutAll
	return h, nil
}

// Start opens all listeners or none, and has the work begin. It is called once.
func (h *Host) Start(ctx context.Context) error {
	lns, err := h.listenAll(ctx, h.places)
	if err != nil {
		return err
	}
	h.lns = lns
	h.begin()
	return nil
}

func (h *Host) begin() {
	h.started.Do(func() {
		go func() {
			defer close(h.done) // which Shutdown waits for
			h.err = h.embedded(h.run, func(err error) { h.refuse(err) })
			h.refuse(cmp.Or(h.err, error(stoppedError("the listener"))))
			if h.Ended != nil {
				h.Ended()
			}
		}()
	})
}

// Close has no more streams be taken, and those that the program has not taken be
// refused. It returns at once: what runs ends when the program has done with its
// streams.
func (h *Host) Close() {
	h.refuse(stoppedError("the listener"))
	h.begin() // what the constructor has opened is closed by the work's end
	h.stop()
}

// CloseService is Close for one service, and for the host when that was the last.
func (h *Host) CloseService(name string) {
	h.hosted[name].refuse(stoppedError("the listener"))
	for _, s := range h.hosted {
		if s.life.Err() == nil {
			return
		}
	}
	h.Close()
}

// Shutdown is Close, and waits until the program has done with its streams and nothing
// runs any more. When ctx ends, which is its error then, the streams that are left are
// cut.
func (h *Host) Shutdown(ctx context.Context) error {
	h.Close()
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
	}
	var err error
	if h.countStreams() > 0 {
		err = context.Cause(ctx)
	}
	h.cutAll()
	<-h.done
	return errors.Join(err, h.err)
}

// Accept returns the next stream of a service for the program. Its error, when there are no more, is
// [net.ErrClosed], or a *Failure that says why the host has ended by itself.
func (h *Host) Accept(service string) (*Carried, error) {
	s := h.hosted[service]
	for s.life.Err() == nil {
		select {
		case c := <-s.incoming:
			return c, nil
		case <-s.life.Done():
		}
	}
	why := context.Cause(s.life)
	if errors.Is(why, errShutdown) {
		return nil, why
	}
	return nil, &Failure{Code: codeOf(memberLabel(why)), Reason: code.Printable(why.Error()), Err: why}
}

// Reach waits until inlets can reach the host, or ctx ends, or all relays say that it
// may not register. The error is a *Failure.
func (h *Host) Reach(ctx context.Context) error {
	for {
		if h.reachable() {
			return nil
		}
		c, denied, err := h.unregistered()
		if denied {
			return &Failure{Code: c, Reason: code.Printable(err.Error()), Err: err}
		}
		switch {
		case h.life.Err() != nil:
			why := context.Cause(h.life)
			return &Failure{Code: codeOf(memberLabel(why)), Reason: code.Printable(why.Error()), Err: why}
		case !wait.Sleep(ctx, reachLook):
			if why := h.member.awaited(); why != nil {
				c, err = codeOf(memberLabel(why)), why
			}
			return &Failure{Code: c, Reason: code.Printable(err.Error()), Err: errors.Join(context.Cause(ctx), err)}
		}
	}
}

// unregistered says why no relay has registered the host, and whether it is all of
// them that may not.
func (h *Host) unregistered() (c code.Code, denied bool, err error) {
	c, denied = code.Timeout, true
	var texts []string
	for _, a := range h.agents.all() {
		states := a.Status()
		denied = denied && len(states) > 0
		for _, s := range states {
			var refused *channel.RefusedError
			switch {
			case s.Err == nil:
				denied = false
				texts = append(texts, s.Address+": still connecting")
				continue
			case !errors.As(s.Err, &refused) || refused.Code != code.RegisterDenied && deniedCode(s.Err) == code.OK:
				denied = false
			}
			c = codeOf(label(s.Err, code.Unreachable))
			texts = append(texts, fmt.Sprintf("%s: %v", s.Address, s.Err))
		}
	}
	if len(texts) == 0 {
		texts = append(texts, "still connecting")
	}
	return c, denied, errors.New("not registered at any relay: " + strings.Join(texts, "; "))
}

// Ways returns the routes by which the host can be reached: those to its relays, and to
// itself where it listens at an address that says where that is.
func (h *Host) Ways() (routes []route.Route) {
	for _, a := range h.agents.all() {
		routes = append(routes, a.route)
	}
	for _, addr := range h.Addrs() {
		at, ok := addr.(*net.TCPAddr)
		if ok && !at.IP.IsUnspecified() && at.Zone == "" {
			routes = append(routes, route.Route{{Host: at.IP.String(), Port: uint16(at.Port), Identifier: h.Identifier()}})
		}
	}
	return routes
}

// take hands a stream to the program, and waits until that has done with it.
func (h *Host) take(ctx context.Context, p *served) streamEnd {
	began, asked, s := time.Now(), h.trust.times.Load(), h.hosted[p.service.Name]
	switch {
	case h.life.Err() != nil:
		return p.refuse(code.Draining, fmt.Sprintf("the program behind %q is stopping", p.service.Name), "")
	case s.life.Err() != nil:
		return p.refuse(code.ServiceUnknown, fmt.Sprintf("the program has no service %q any more", p.service.Name), "")
	}
	if e, ok := p.admit(); !ok {
		return e
	}
	select {
	case s.waiting <- struct{}{}:
	default:
		return p.refuse(code.Busy, fmt.Sprintf("%d connections wait for the program behind %q already: try again", hostBacklog, p.service.Name), "")
	}
	waits := true
	free := func() {
		if waits {
			waits = false
			<-s.waiting
		}
	}
	defer free()
	st, err := p.req.Accept()
	if err != nil {
		c, reason := streamCode(err, code.Aborted)
		return streamEnd{label: known(c), reason: reason}
	}
	if d := p.carries(st, nil, asked); d != nil {
		_ = st.Reset(d.code) // it is over either way
		return streamEnd{label: d.code.String(), reason: d.logged()}
	}
	st.HandOff()
	p.service.bounds.keep(st)
	defer p.service.bounds.unbind(st)
	// Whoever has the stream may be busy elsewhere when it is lost, or cut. What it
	// holds here is given back then.
	over, settled := make(chan error, 1), make(chan error, 1)
	st.OnEnd(func(err error) { over <- err })
	c := &Carried{
		Stream: st, Service: p.service.Name, Client: p.req.ClientAddress, trust: h.trust,
		peer: p.ch.session.Peer, settled: func(err error) { settled <- err },
	}
	select {
	case s.incoming <- c:
		free()
		p.metrics.waited(began)
	case err := <-over:
		c.cut(code.Aborted, err)
	case <-s.life.Done():
		c.cut(code.Shutdown, errShutdown)
	case <-ctx.Done():
	}
	select {
	case err := <-settled:
		return c.end(err)
	case err := <-over:
		return c.end(err)
	case <-ctx.Done():
		c.cut(code.Shutdown, errShutdown)
		return c.end(<-settled)
	}
}
