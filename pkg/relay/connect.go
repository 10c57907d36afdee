package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A waiter is a caller held for a registration's next spare conn.
type waiter struct {
	spare chan *spare // holds one
}

// A declinedError is why a request cannot be granted.
type declinedError struct {
	code   code.Code
	reason string
	why    string // what the caller is not told, of a DeniedError
	usual  bool   // an answer that belongs to the way of asking: nobody else need know
}

func (r *declinedError) Error() string {
	if r.why != "" {
		return r.code.String() + ": " + r.reason + ": " + r.why
	}
	return r.code.String() + ": " + r.reason
}

func declinef(c code.Code, format string, args ...any) error {
	return &declinedError{code: c, reason: fmt.Sprintf(format, args...)}
}

// connect joins the caller to an outlet that is registered here.
func (c *call) connect(ctx context.Context) {
	if err := c.mayConnect(identity.Identifier(c.req.Outlet)); err != nil {
		c.deny(code.ConnectDenied, err)
		return
	}
	if !c.record() {
		return
	}
	w := watchCaller(ctx, c.in.Accept())
	sp, err := c.takeSpare(w.ctx)
	if err == nil {
		err = w.stop()
	} else if werr := w.stop(); werr != nil {
		err = werr // the caller's doing comes first
	}
	if err != nil {
		if sp != nil {
			sp.discard(errors.New("its caller left"))
		}
		c.decline(err)
		return
	}
	defer sp.ticket.release()
	j := &join{
		kind: kindConnect, caller: c.peer, outlet: sp.r.peer, grant: c.grant,
		target: sp.r.peer.Identifier.String(), targetInstance: sp.r.peer.Instance.String(),
	}
	c.join(ctx, j, message{Kind: msgOK}, sp.raw, sp.first)
}

// decline ends a request that failed with err: with a refusal, which is counted
// unless it is a usual answer, or without a word if the caller has left.
func (c *call) decline(err error) {
	var r *declinedError
	switch {
	case errors.As(err, &r) && r.usual:
		c.answerRefusal(Refusal{Code: r.code, Reason: r.reason, Usual: true})
	case errors.As(err, &r):
		c.refuseWhy(r.code, r.reason, r.why)
	case errors.Is(err, errStopping):
		c.refuse(code.Shutdown, "relay is stopping")
	default:
		c.cfg.Trace.Abandoned(c.peer, c.req.Kind.String(), c.grant, err)
		_ = c.in.Accept().Close()
	}
}

// takeSpare returns a spare conn of the wanted outlet, raw. It tries one after
// the other, and waits for the next when there is none.
func (c *call) takeSpare(ctx context.Context) (*spare, error) {
	t := c.cfg.Timing
	hold := time.NewTimer(t.Hold)
	defer hold.Stop()
	failed := make(map[*registration]bool) // a spare of theirs did not answer
	for until := time.Now().Add(t.Hold); ; {
		r, sp, w, err := c.nextSpare(failed)
		if err != nil {
			return nil, err
		}
		if sp == nil {
			if sp, err = c.await(ctx, r, w, hold.C); err != nil {
				return nil, err
			}
		}
		if sp != nil {
			if err = sp.use(ctx, t.Going); err == nil {
				return sp, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			failed[r] = true
		}
		if time.Now().After(until) {
			return nil, errBusy
		}
	}
}

var errBusy = declinef(code.Busy, "no parked conn of the outlet came free in time")

// nextSpare picks the registration to use and takes a spare conn of it, or a
// place among those that wait for one.
func (c *call) nextSpare(failed map[*registration]bool) (*registration, *spare, *waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.pickLocked(failed)
	if err != nil {
		return nil, nil, nil, err
	}
	if sp := r.popLocked(); sp != nil {
		return r, sp, nil, nil
	}
	if len(r.waiting) >= c.cfg.Limits.Waiting {
		return nil, nil, nil, declinef(code.Busy, "%d callers already wait for the outlet", len(r.waiting))
	}
	w := &waiter{spare: make(chan *spare, 1)}
	r.waiting = append(r.waiting, w)
	r.kickWriter()
	return r, nil, w, nil
}

// pickLocked chooses among the outlet's registrations: the instance that is
// asked for, or else the newest that does not drain, and rather one that has
// not failed this caller yet.
func (c *call) pickLocked(failed map[*registration]bool) (*registration, error) {
	id := identity.Identifier(c.req.Outlet)
	all := c.outlets[id]
	switch {
	case c.Server.draining:
		return nil, declinef(code.Draining, drainingReason)
	case len(all) == 0 && c.req.Instance == nil:
		return nil, declinef(code.NotRegistered, "outlet %s is not registered here", id)
	case c.req.Instance != nil:
		if r := c.findLocked(id, channel.Instance(c.req.Instance)); r != nil {
			return r, nil
		}
		return nil, declinef(code.Gone, "instance %x of outlet %s is not registered here", c.req.Instance, id)
	}
	var pick *registration
	for _, r := range slices.Backward(all) {
		if !r.draining && (pick == nil || failed[pick] && !failed[r]) {
			pick = r
		}
	}
	if pick == nil {
		return nil, declinef(code.Draining, "outlet %s is going away", id)
	}
	return pick, nil
}

// await waits for the spare conn that w is to get. No spare and no error say
// that the registration ended or the relay drains.
func (c *call) await(ctx context.Context, r *registration, w *waiter, hold <-chan time.Time) (*spare, error) {
	var err error
	select {
	case sp := <-w.spare:
		return sp, nil
	case <-r.done:
	case <-c.drained:
	case <-hold:
		err = errBusy
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.mu.Lock()
	r.waiting = slices.DeleteFunc(r.waiting, func(o *waiter) bool { return o == w })
	c.mu.Unlock()
	select {
	case sp := <-w.spare:
		// It came at the last moment.
		if ctx.Err() == nil {
			return sp, nil
		}
		c.giveBack(sp)
	default:
	}
	return nil, err
}
