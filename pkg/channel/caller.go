package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Caller makes channels to one peer, and the paths of those channels, over
// alternative routes. Everything but Local, Peer, Routes and Path has a
// default. It is safe for concurrent use and keeps nothing between calls.
type Caller struct {
	Local *Local
	Peer  identity.Identifier
	// Instance is the process of the peer's that new channels are opened to; nil
	// means any. Where another one answers everywhere, the error is an
	// [InstanceError], and that one has not learnt who called.
	Instance *Instance
	// Routes is how many routes there are; they are numbered from 0, the best
	// first.
	Routes int
	// Listed, unless it is nil, says in the place of Routes which routes there are
	// now: their numbers, which are not negative, the best first, at least one, and
	// none twice. It is asked at each attempt. A number means the same route for ever,
	// and Path may be asked for one that was listed a moment ago. Channels hear of a
	// change by [Channel.Reroute].
	Listed func() []int
	// Path makes a live path along a route, ready for the handshake: to that
	// instance of the peer's, or to any if it is nil. Where nobody on the route can
	// be asked for an instance, the path leads to the address of that number, from
	// 0 on, at the route's end, behind which another may be. Past the last one, and
	// past 0 where an instance can be asked for, the error is ErrNoAddress.
	Path func(ctx context.Context, route int, instance *Instance, address int) (net.Conn, error)
	// Direct reports whether a route is one connection, to the peer itself. The peer
	// is then told the address of this side's end ([State.PeerAddr]). Nil means that
	// none is.
	Direct func(route int) bool

	Settings Settings
	Timing   Timing

	// Failed is told of each attempt over a route that did not work; nil means
	// nobody is. It must not block.
	Failed func(route int, err error)
}

// Timing is when a [Caller] makes paths. Zero means the default.
type Timing struct {
	// Stagger is how long a route may take before the next one is tried beside
	// it; 1 s.
	Stagger time.Duration
	// MaxPause is the longest pause between attempts, before jitter; 1 s. The
	// first comes at once, the second within 50 ms.
	MaxPause time.Duration
	// Renew is how long a path may live, give or take a tenth, before a new
	// handshake brings new keys; 1 h. RenewBytes is how many bytes of one
	// direction; 64 GiB.
	Renew      time.Duration
	RenewBytes uint64
	// Return is how long a route has to hold before better ones are tried
	// again; 30 s. It doubles, up to 20 times that, each time that a better one
	// does not hold for as long.
	Return time.Duration
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Stagger, time.Second},
		{&t.MaxPause, time.Second},
		{&t.Renew, time.Hour},
		{&t.Return, 30 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if t.RenewBytes == 0 {
		t.RenewBytes = 64 << 30
	}
	return t
}

// ErrNoAddress is a [Caller]'s Path's word that a route leads to no further
// address.
var ErrNoAddress = errors.New("no further address")

// An InstanceError says that another process of the peer's identity has
// answered than the one that holds the channel, or is to. That one is no more if
// the same goes for all other ways to it.
type InstanceError struct {
	Want, Got Instance
}

func (e *InstanceError) Error() string {
	return fmt.Sprintf("peer is another process: %s, wanted %s", e.Got, e.Want)
}

// routes returns the numbers of the routes that there are now, the best first.
func (d *Caller) routes() []int {
	if d.Listed != nil {
		return d.Listed()
	}
	order := make([]int, d.Routes)
	for i := range order {
		order[i] = i
	}
	return order
}

// Dial opens a channel over the first route that works: one after the other,
// beginning with the one at that place among them, which is first taken modulo their
// number, the next when one has failed or takes long. It returns
// when the peer has accepted, and the channel is used by nobody until its Run
// is called. Failed has heard why routes do not work; the error is theirs,
// joined, or ctx's.
func (d *Caller) Dial(ctx context.Context, first int) (*Channel, error) {
	order := d.routes()
	if len(order) == 0 {
		return nil, errors.New("channel: Caller has no routes")
	}
	first %= len(order)
	order = slices.Concat(order[first:], order[:first])
	r := race[*Channel]{
		order: order, stagger: d.Timing.withDefaults().Stagger, failed: d.Failed,
		try: d.open,
		drop: func(c *Channel) {
			_ = c.CloseWithReason(code.OK, "another route was faster")
			c.background.Wait()
		},
	}
	c, _, err := r.run(ctx)
	return c, err
}

// open opens a channel over one route.
func (d *Caller) open(ctx context.Context, route int) (*Channel, error) {
	set := d.Settings.withDefaults()
	id, err := newID()
	if err != nil {
		return nil, err
	}
	p, err := d.addresses(ctx, d.Instance, func(address int) (*Conn, error) {
		return d.handshake(ctx, route, d.Instance, address, func() channelRequest {
			return channelRequest{ID: id[:], Mode: modeNew, Window: uint64(set.Window)}
		})
	})
	if err != nil {
		return nil, err
	}
	c := newChannel(id, set, p.peer)
	c.keeper = newKeeper(d, c)
	p.asPath(c, 0, true)
	if err := c.take(ctx, p, route, Lost); err != nil {
		return nil, err
	}
	return c, nil
}

// take waits until the responder takes p into use, and uses it. An error ends
// p.
func (c *Channel) take(ctx context.Context, p *Conn, route int, cause Cause) error {
	if err := p.awaitAttached(ctx, c.set.Handshake.withDefaults().Timeout); err != nil {
		p.discard(p.complaint(p.lie))
		return err
	}
	return c.install(p, route, cause)
}

// complaint is what a peer is told last that has lied on p, nil if it has not.
func (p *Conn) complaint(lie error) []byte {
	if !errors.Is(lie, ErrProtocol) {
		return nil
	}
	return appendClose(nil, p.attach.received, code.Protocol, lie.Error())
}

// maxAddresses bounds how many addresses of one route an attempt tries.
const maxAddresses = 64

// An elsewhereError says of a route that other processes of the peer's identity
// have answered at all addresses that it leads to.
type elsewhereError struct{ *InstanceError }

// Unwrap returns what the last of them is.
func (e elsewhereError) Unwrap() error { return e.InstanceError }

// addresses makes a conn at the first address of a route where that works, for
// any instance at the only one that there is.
func (d *Caller) addresses(ctx context.Context, instance *Instance, try func(address int) (*Conn, error)) (*Conn, error) {
	var errs []error
	var other *InstanceError
	others := 0
	for address := range maxAddresses {
		p, err := try(address)
		var v verdict
		switch {
		case err == nil:
			return p, nil
		case instance == nil, errors.As(err, &v), ctx.Err() != nil:
			return nil, err
		case address > 0 && errors.Is(err, ErrNoAddress):
			if others == len(errs) {
				return nil, elsewhereError{other}
			}
			return nil, errors.Join(errs...)
		case errors.As(err, &other):
			others++
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// handshake makes a path and asks the peer on it for what request returns, which
// is called when the path is there. Another instance than the one that is given
// hears nothing.
func (d *Caller) handshake(ctx context.Context, route int, instance *Instance, address int, request func() channelRequest) (*Conn, error) {
	nc, err := d.Path(ctx, route, instance, address)
	if err != nil {
		return nil, err
	}
	r := request()
	if d.Direct != nil && d.Direct(route) {
		r.From = fromOf(nc)
	}
	b, err := r.encode()
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	opt := d.Settings.Handshake
	if instance != nil {
		opt.Admit = func(p Peer) error {
			if p.Instance != *instance {
				return &InstanceError{Want: *instance, Got: p.Instance}
			}
			if d.Settings.Handshake.Admit == nil {
				return nil
			}
			return d.Settings.Handshake.Admit(p)
		}
	}
	return Initiate(ctx, nc, d.Local, d.Peer, PurposeChannel, b, opt)
}

// A race tries one after the other until one succeeds, the next when one has
// failed or takes long.
type race[T any] struct {
	order   []int
	stagger time.Duration
	try     func(ctx context.Context, i int) (T, error)
	drop    func(T) // of a success that came too late
	failed  func(i int, err error)
}

type result[T any] struct {
	i   int
	got T
	err error
}

// run returns the first success, or the errors of all. When it returns nothing
// that it started runs any more.
func (r *race[T]) run(ctx context.Context) (got T, which int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result[T])
	timer := time.NewTimer(r.stagger)
	defer timer.Stop()
	var errs []error
	started, pending, won := 0, 0, false
	start := func() {
		if started == len(r.order) || won || ctx.Err() != nil {
			return
		}
		i := r.order[started]
		started++
		pending++
		timer.Reset(r.stagger)
		go func() { // joined by the loop below, which reads all results
			got, err := r.try(ctx, i)
			results <- result[T]{i, got, err}
		}()
	}
	for start(); pending > 0; {
		select {
		case <-timer.C:
			start()
		case a := <-results:
			pending--
			switch {
			case a.err == nil && won:
				r.drop(a.got)
			case a.err == nil:
				got, which, won = a.got, a.i, true
				cancel()
			case !won:
				errs = append(errs, a.err)
				if r.failed != nil && ctx.Err() == nil {
					r.failed(a.i, a.err)
				}
				start()
			}
		}
	}
	if won {
		return got, which, nil
	}
	if err := errors.Join(errs...); err != nil {
		return got, -1, err
	}
	return got, -1, context.Cause(ctx)
}
