package ping

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

const (
	// maxFound bounds how many of the outlets that a relay lists are measured, which
	// is how many an inlet uses.
	maxFound = 8
	// closeTime bounds how long the end of a way waits for the target to end, and again
	// for the outlet's word.
	closeTime = 2 * time.Second
)

// A place is where a way leads.
type place struct {
	route      route.Route
	number, of int // of the route
	outlet     identity.Identifier
	instance   *channel.Instance // nil: any; of a service that any outlet may offer, the one that a relay lists
}

func (p *Pinger) newWay(at place) *Way {
	w := &Way{Route: at.route.String(), Number: at.number, Of: at.of, Steps: []Step{}}
	if !at.outlet.IsZero() {
		w.Outlet = at.outlet.String()
	}
	p.cfg.Trace.Began(w)
	return w
}

// findAndMeasure asks the relay at the end of a route who offers the service, and
// measures the way to each.
func (p *Pinger) findAndMeasure(ctx context.Context, at place) []*Way {
	w := p.newWay(at)
	r := &recorder{ctx: ctx, p: p, way: w, at: at}
	tctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	found, err := p.dialer(r).Find(tctx, at.route, p.cfg.Service)
	cancel()
	r.flush()
	if err == nil && len(found) == 0 {
		err = errNoneFound
	}
	if w.Found = len(found); err != nil {
		w.Problem = r.why(err)
	}
	p.cfg.Trace.Ended(w)
	ways := []*Way{w}
	for _, replica := range found[:min(len(found), maxFound)] {
		if ctx.Err() != nil {
			break
		}
		to := at
		to.outlet, to.instance = replica.Outlet, &replica.Instance
		ways = append(ways, p.measure(ctx, to))
	}
	return ways
}

// dialer returns what goes along a route as the inlet does, and tells r.
func (p *Pinger) dialer(r *recorder) *relay.Dialer {
	return &relay.Dialer{Local: p.local, Trace: r.stepped}
}

// measure measures one way.
func (p *Pinger) measure(ctx context.Context, at place) *Way {
	w := p.newWay(at)
	defer p.cfg.Trace.Ended(w)
	r := &recorder{ctx: ctx, p: p, way: w, at: at}
	tctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	ch, err := p.open(tctx, r)
	r.flush()
	if err != nil {
		w.Problem = r.why(err)
		return w
	}
	peer := ch.Peer()
	w.Instance, w.Name = peer.Instance.String(), peer.Name
	p.use(ctx, r, ch)
	return w
}

// open opens a channel over the way.
func (p *Pinger) open(ctx context.Context, r *recorder) (*channel.Channel, error) {
	dialer := p.dialer(r)
	caller := &channel.Caller{
		Local: p.local, Peer: r.at.outlet, Instance: r.at.instance, Routes: 1,
		Path: func(ctx context.Context, _ int, instance *channel.Instance, address int) (net.Conn, error) {
			nc, err := dialer.Path(ctx, r.at.route, r.at.outlet, instance, address)
			r.pathed(err)
			return nc, err
		},
		Direct: func(int) bool { return len(r.at.route) == 1 && r.at.route[0].Identifier == r.at.outlet },
		Settings: channel.Settings{
			Keepalive: p.cfg.Inlet.Keepalive,
			Handshake: channel.Options{Admit: func(peer channel.Peer) error {
				if r.at.instance != nil {
					if err := p.offers(peer); err != nil {
						return err
					}
				}
				r.proven()
				return nil
			}},
			Trace: &channel.Trace{
				Lost:  func(_ *channel.Channel, _ int, err error) { r.changed(Change{At: time.Now(), Lost: oneLine(err)}) },
				Moved: func(_ *channel.Channel, m channel.Move) { r.changed(Change{At: time.Now(), Down: m.Down.Seconds()}) },
			},
		},
	}
	ch, err := caller.Dial(ctx, 0)
	r.dialled(err)
	return ch, err
}

// use pings over a channel and opens the service, where that is asked for; then the
// channel is closed.
func (p *Pinger) use(ctx context.Context, r *recorder, ch *channel.Channel) {
	session := tunnel.NewClient(ch, tunnel.Config{})
	var running sync.WaitGroup
	running.Go(func() { _ = ch.Run(context.WithoutCancel(ctx)) })      // Close, or Fail, ends it
	running.Go(func() { _ = session.Run(context.WithoutCancel(ctx)) }) // Close ends it
	p.ping(ctx, r, ch)
	p.cfg.Trace.Pinged(r.way)
	works := r.way.Pings.Answered > 0 || r.way.Pings.Sent == 0 // interrupted: the outlet has accepted the channel
	if p.cfg.Open && ctx.Err() == nil {
		works = p.openService(ctx, r, session, ch) && works
	}
	r.way.Works = works
	if err := ch.Err(); err != nil && r.way.Problem == nil {
		r.way.Problem = r.explain(r.outlet(StepChannel), err)
	}
	session.Close(code.OK, "")
	late := time.AfterFunc(p.outletHears, func() { ch.Fail(code.Shutdown, errors.New("the ping is over")) })
	defer late.Stop()
	running.Wait()
}

// ping makes the round trips.
func (p *Pinger) ping(ctx context.Context, r *recorder, ch *channel.Channel) {
	// A peer that is silent for two intervals has lost the path.
	each := 2*p.cfg.Inlet.Keepalive + time.Second
	pings := &Pings{Seconds: []float64{}}
	r.way.Pings = pings
	defer pings.sum()
	for pings.Sent < p.cfg.Count && ch.Err() == nil {
		one, cancel := context.WithTimeout(ctx, each)
		took, err := ch.Ping(one)
		cancel()
		if ctx.Err() != nil && err != nil {
			return // nobody waits for that one any more
		}
		pings.Sent++
		if err != nil {
			pings.LastError = oneLine(err)
		} else {
			pings.Seconds = append(pings.Seconds, took.Seconds())
		}
		if pings.Sent < p.cfg.Count && !wait.Sleep(ctx, p.cfg.Interval) {
			return
		}
	}
}

// openService asks for the service, and reports whether it was opened.
func (p *Pinger) openService(ctx context.Context, r *recorder, session *tunnel.Session, ch *channel.Channel) bool {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	began := time.Now()
	st, err := session.Open(ctx, tunnel.Open{Service: p.cfg.Service})
	if err == nil {
		err = st.Answered(ctx)
	}
	s := r.outlet(StepOpen)
	s.At, s.Service, s.Seconds = AtService, p.cfg.Service, time.Since(began).Seconds()
	if err != nil {
		s.Problem = r.explain(s, err)
	}
	r.add(s)
	if st != nil {
		p.leave(context.WithoutCancel(ctx), session, ch, st, err == nil)
	}
	return err == nil
}

// leave ends a stream, and returns when the outlet has heard of it, or after twice the
// closeTime: were the session closed before, the outlet would count the stream as lost with its
// channel. One that was opened ends cleanly, for the target, too, unless the target goes on
// although its client has said its end.
func (p *Pinger) leave(ctx context.Context, session *tunnel.Session, ch *channel.Channel, st *tunnel.Stream, opened bool) {
	if opened && p.end(st) == nil {
		_ = st.Close()
	} else {
		_ = st.Reset(code.Aborted) // one that was refused is over already
	}
	ctx, cancel := context.WithTimeout(ctx, p.outletHears)
	defer cancel()
	// A round trip is about what it takes until there is news.
	for !session.Settled() {
		if _, err := ch.Ping(ctx); err != nil {
			return // nothing is known, and there is nothing to do
		}
	}
}

// end says this side's end and waits for the other's, at most for the closeTime. What
// comes before it is nobody's.
func (p *Pinger) end(st *tunnel.Stream) error {
	if err := st.SetDeadline(time.Now().Add(p.targetEnds)); err != nil {
		return err
	}
	if err := st.CloseWrite(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, st)
	return err
}

// errNoneFound is a relay's answer.
var errNoneFound = errors.New("the relay lists no outlet that offers the service")

// why returns why there is no way: what the step says that got farthest, or else err.
func (r *recorder) why(err error) *Problem {
	if s, found := r.farthest(); found {
		return s.Problem
	}
	return r.explain(r.at.hop(len(r.at.route)-1), err)
}
