package channel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/pkg/code"
)

// returnMax bounds how much longer than Timing.Return a route is kept for which
// there are better ones that do not hold.
const returnMax = 20

// A keeper makes the paths of one channel, at its initiator. Everything but
// what says otherwise belongs to Run's goroutine.
type keeper struct {
	d      *Caller
	c      *Channel
	timing Timing
	// Signals from others, of which one of a kind waits.
	moves chan struct{} // Move was called
	shown chan struct{} // Renew was called
	worn  chan struct{} // the path's keys have carried enough
	other chan struct{} // Reroute was called
	// planned is the path that the times below are for.
	planned *Conn
	// When a new handshake is due; after one that did not work only then, worn
	// or not.
	renewAt time.Time
	rest    bool
	stale   bool // Renew was called, and no handshake has worked since
	// When better routes are tried again, and how long the present one has to
	// hold before that.
	returnAt time.Time
	hold     time.Duration
	leaveAt  time.Time                  // when a path over a route that is listed no more is to be left
	pause    backoff.ExponentialBackOff // between attempts that come to nothing
	carried  uint64                     // bytes of both directions, when a path was last lost
}

func newKeeper(d *Caller, c *Channel) *keeper {
	k := &keeper{d: d, c: c, timing: d.Timing.withDefaults(), moves: make(chan struct{}, 1), shown: make(chan struct{}, 1), worn: make(chan struct{}, 1), other: make(chan struct{}, 1)}
	k.hold = k.timing.Return
	k.pause = backoff.ExponentialBackOff{
		InitialInterval: 30 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: k.timing.MaxPause,
	}
	k.pause.Reset()
	return k
}

// checkKeysLocked asks for new keys when the path's have carried enough. It is
// called with the channel's mu, by whoever sends or reads; a nil keeper does
// nothing.
func (k *keeper) checkKeysLocked(p *Conn) {
	if k != nil && max(p.w.keyBytes.Load(), p.keyUsed.Load()) >= k.timing.RenewBytes {
		signal(k.worn)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func forget(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// Move asks for another path while the present one works: its relay drains. It
// does nothing at the responder.
func (c *Channel) Move() {
	if c.keeper != nil {
		signal(c.keeper.moves)
	}
}

// Renew asks for a new handshake, over the present route if it works, while the
// present path works: what one of the sides shows in it has changed, such as its
// credentials. It is tried again until it has worked. It does nothing at the
// responder.
func (c *Channel) Renew() {
	if c.keeper != nil {
		signal(c.keeper.shown)
	}
}

// Reroute says that other routes are listed now, or in another order. A path over one
// that is listed no more is left for one that is, as soon as that works, and not
// before; a better one than the present is tried as one that works again. It does
// nothing at the responder.
func (c *Channel) Reroute() {
	if c.keeper != nil {
		signal(c.keeper.other)
	}
}

// Leave ends the present path, if there is one, for a reason that State then has: what
// it leads over may be used no more. It is a loss like others: the initiator makes another
// path at once, and both sides send again what the other lacks.
func (c *Channel) Leave(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != nil && c.err == nil {
		c.lostLocked(c.path, err)
	}
}

// Run keeps the channel until it is over, and returns why: at the initiator it
// makes the channel's paths. When ctx ends the channel ends, without a word;
// call Close first. Nothing of the channel runs any more when Run has returned.
func (c *Channel) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.Fail(code.Shutdown, context.Cause(ctx)) })
	defer stop()
	if c.keeper != nil {
		c.keeper.run(c.life)
	}
	<-c.Done()
	err := c.Err() // behind mu: what ended the channel has started all that it starts
	c.background.Wait()
	return err
}

// run makes paths until the channel is over.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		up, changed := k.c.Up()
		switch {
		case up:
			if cause := k.await(ctx, changed); cause != "" {
				k.improve(ctx, cause, changed)
			}
		case k.c.needsPath():
			k.recover(ctx)
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// await waits until there is a reason to make a path: "" when the present one
// has changed.
func (k *keeper) await(ctx context.Context, changed <-chan struct{}) Cause {
	st := k.c.State()
	if path := k.path(); path != k.planned {
		k.planned = path
		// A tenth more or less, so that not all channels of a process renew
		// their keys at once.
		k.renewAt = st.Since.Add(k.timing.Renew/10*9 + rand.N(k.timing.Renew/5+1)) //nolint:gosec // no secret
		k.rest, k.stale = false, false
		forget(k.worn) // the keys before
		k.returnAt, k.leaveAt = st.Since.Add(k.hold), time.Time{}
	}
	worn := k.worn
	if k.rest {
		worn = nil
	}
	renew := time.NewTimer(time.Until(k.renewAt))
	defer renew.Stop()
	better, place := k.returnAt, slices.Index(k.d.routes(), st.Route)
	if place < 0 {
		better = k.leaveAt // which is at once
	}
	back := time.NewTimer(time.Until(better))
	defer back.Stop()
	if place == 0 {
		back.Stop()
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-k.other:
		k.leaveAt = time.Time{} // those that did not work are not those that there are
	case <-k.moves:
		return Asked
	case <-k.shown:
		k.stale = true
		return Renewed
	case <-worn:
		return Renewed
	case <-renew.C:
		return Renewed
	case <-back.C:
		if place < 0 {
			return Asked
		}
		return Returned
	}
	return ""
}

// path returns the present path, or nil.
func (k *keeper) path() *Conn {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.path
}

// recover makes a path for a channel that has none, or ends it.
func (k *keeper) recover(ctx context.Context) {
	forget(k.moves) // another path comes anyway
	forget(k.shown) // and shows what there is to show
	st := k.c.State()
	if st.Up {
		return
	}
	k.judge()
	ctx, cancel := context.WithDeadline(ctx, st.Since.Add(k.c.set.Grace))
	defer cancel()
	wait := time.Duration(0)
	if k.held() {
		k.pause.Reset()
	} else {
		wait = k.pause.NextBackOff()
	}
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			k.c.graceOver() // where it was not the channel that has ended
			return
		}
		other, err := k.attempt(ctx, k.order(st.Route), Lost)
		if err == nil || k.hopeless(err) {
			return
		}
		// No verdict while there is a path: the process at its end lives, whoever
		// another route leads to.
		if other != nil {
			k.c.Fail(code.Gone, other)
			return
		}
		wait = k.pause.NextBackOff()
		if passing(err) {
			wait = min(wait, passingPause)
		}
	}
}

// stalePause is the longest pause after a handshake that did not work and was to
// show something new.
const stalePause = 5 * time.Second

// leavePause is the pause after an attempt that did not work to leave a route that is
// listed no more.
const leavePause = 5 * time.Second

// passingPause is the longest pause after an attempt that has come as far as a
// relay that works.
const passingPause = 250 * time.Millisecond

// passing reports whether err is a relay's word that the peer is not there: it
// is about to come back where the relay has just started.
func passing(err error) bool {
	var r *RefusedError
	return errors.As(err, &r) && (r.Code == code.NotRegistered || r.Code == code.Gone)
}

// calm is how long a path has to live to count as one, if it carries nothing.
const calm = 200 * time.Millisecond

// held reports whether the path that was lost has been of any use. One that has
// not is an attempt like those that do not work: the next one waits.
func (k *keeper) held() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	before := k.carried
	k.carried = k.c.received + k.c.confirmed
	return k.carried != before || k.c.held >= calm
}

// judge makes the next return wait for twice as long when the last one has
// brought a path that did not hold.
func (k *keeper) judge() {
	k.c.mu.Lock()
	cause, held := k.c.cause, k.c.held
	k.c.mu.Unlock()
	switch {
	case held >= k.timing.Return:
		k.hold = k.timing.Return
	case cause == Returned:
		k.hold = min(2*k.hold, returnMax*k.timing.Return)
	}
}

// order returns all routes, the best first and last the one that has just
// failed, if it is one of them.
func (k *keeper) order(last int) []int {
	routes := k.d.routes()
	if i := slices.Index(routes, last); i >= 0 {
		return append(slices.Concat(routes[:i], routes[i+1:]), last)
	}
	return routes
}

// better returns the routes that are better than one, or all where that is listed no
// more.
func (k *keeper) better(than int) []int {
	routes := k.d.routes()
	if i := slices.Index(routes, than); i >= 0 {
		return routes[:i]
	}
	return routes
}

// again returns all routes, first the present one, if it is one of them.
func (k *keeper) again(present int) []int {
	routes := k.d.routes()
	if i := slices.Index(routes, present); i >= 0 {
		return slices.Concat(routes[i:i+1], routes[:i], routes[i+1:])
	}
	return routes
}

// A verdict is an error, from the peer itself, that means that there is nothing
// to go back to, or nobody to trust. What relays say on the way is none, and
// neither is that this side's key or clock is wrong now: both can be put right.
type verdict struct{ *LostError }

// verdictOf returns what the peer's answer to a resume, on p, means for the
// channel.
func verdictOf(p *Conn, err error) error {
	if p.lie != nil {
		return verdict{&LostError{Code: code.Protocol, Err: fmt.Errorf("resuming: %w", p.lie)}}
	}
	var r *RefusedError
	if errors.As(err, &r) && (r.Code == code.UnknownChannel || r.Code == code.ChannelDenied || r.Code == code.Diverged || r.Code == code.IdentityRevoked || r.Code == code.Protocol) {
		return verdict{&LostError{Code: r.Code, Err: fmt.Errorf("resuming: %w", r)}}
	}
	return err
}

// hopeless reports whether the channel is over, and ends it for a verdict.
func (k *keeper) hopeless(err error) bool {
	var v verdict
	if errors.As(err, &v) {
		k.c.Fail(v.Code, v.Err)
	}
	return k.c.Err() != nil
}

// improve makes a path while there is one, which is given up only for a better
// one. When the present one ends, the attempt has no more than the stagger time
// left.
func (k *keeper) improve(ctx context.Context, cause Cause, changed <-chan struct{}) {
	st := k.c.State()
	select {
	case <-k.shown: // this handshake shows it
		k.stale = true
	default:
	}
	var order []int
	switch cause {
	case Renewed:
		order = k.again(st.Route)
	case Returned:
		order = k.better(st.Route)
	default:
		order = k.order(st.Route)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		defer cancel()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		// The peer may have given the old path up for the new one, and this is
		// known here before its word on the new one.
		t := time.NewTimer(k.timing.Stagger)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	})
	_, err := k.attempt(ctx, order, cause)
	cancel()
	watch.Wait()
	if err == nil || k.hopeless(err) {
		return
	}
	switch cause {
	case Renewed: // the keys are good for much more
		pause := k.timing.Renew / 20
		if k.stale {
			pause = min(pause, stalePause)
		}
		k.renewAt, k.rest = time.Now().Add(pause), true
	case Returned:
		k.returnAt = time.Now().Add(k.timing.Return)
	default:
		k.leaveAt = time.Now().Add(leavePause)
	}
}

// attempt makes one path, over the first of the routes that works. It returns
// other beside the error when other processes of the peer's identity have
// answered at every address of each of them: where those are all, there is no way left to the one that
// holds the channel. As long as somewhere nobody answers, it may be there.
func (k *keeper) attempt(ctx context.Context, order []int, cause Cause) (other *InstanceError, err error) {
	elsewhere := 0
	r := race[*Conn]{
		order: order, stagger: k.timing.Stagger,
		failed: func(route int, err error) {
			if e := new(elsewhereError); errors.As(err, e) {
				other = e.InstanceError
				elsewhere++
			}
			if k.d.Failed != nil {
				k.d.Failed(route, err)
			}
		},
		try: func(ctx context.Context, route int) (*Conn, error) { return k.try(ctx, route, cause) },
		// One that came too late is in use already, and the other is not.
		drop: func(*Conn) {},
	}
	if _, _, err = r.run(ctx); elsewhere < len(order) {
		other = nil
	}
	return other, err
}

// try makes a path over one route, up to its use: at the first address where the
// process answers that holds the channel. ctx ends with the channel.
func (k *keeper) try(ctx context.Context, route int, cause Cause) (*Conn, error) {
	return k.d.addresses(ctx, &k.c.instance, func(address int) (*Conn, error) {
		return k.tryAddress(ctx, route, address, cause)
	})
}

// tryAddress makes a path to one address of a route, up to its use.
func (k *keeper) tryAddress(ctx context.Context, route, address int, cause Cause) (*Conn, error) {
	c := k.c
	var epoch uint64
	p, err := k.d.handshake(ctx, route, &c.instance, address, func() channelRequest {
		// The count is taken as late as can be: what the old path brings meanwhile
		// need not come twice.
		c.mu.Lock()
		defer c.mu.Unlock()
		c.epoch++
		epoch = c.epoch
		return channelRequest{ID: c.id[:], Mode: modeResume, Received: c.received, Epoch: epoch, Window: uint64(c.set.Window)}
	})
	if err != nil {
		return nil, err
	}
	p.asPath(c, epoch, true)
	if err := c.take(ctx, p, route, cause); err != nil {
		return nil, verdictOf(p, err)
	}
	return p, nil
}
