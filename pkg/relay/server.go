package relay

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Server is a relay. It is safe for concurrent use; [Server.Serve] may run
// on several listeners at once.
type Server struct {
	cfg   Config
	slots chan struct{} // one for each handshake in flight
	turns turns.Turns   // of those
	rate  *rate.Limiter

	grants atomic.Uint64 // the ID of the last grant

	// Of capacity 1: held by the find that looks through the outlets, of those that may
	// connect in general, and of others.
	finding, findingOthers chan struct{}
	spread                 [32]byte // random: what outlets cannot know of the order in which finds choose among too many

	mu            sync.Mutex
	outlets       map[identity.Identifier][]*registration // oldest first
	registrations int
	standings     map[process]*standing // of the outlets that callers are joined to
	conns         int
	perIdentity   map[identity.Identifier]int
	joins         map[*join]struct{}
	joined        uint64 // joins of which the caller was told
	placed        uint64 // conns that have had a place
	// Bytes of joins that have ended.
	toTarget, toCaller int64
	refusals           map[code.Code]uint64
	rechecks           int // calls of Recheck so far
	draining           bool
	drained            chan struct{} // closed once draining
}

// NewServer checks cfg and returns a Server that does nothing yet.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	perSecond := cfg.Limits.HandshakesPerSecond
	s := &Server{
		cfg:           cfg,
		slots:         make(chan struct{}, cfg.Limits.Handshakes),
		finding:       make(chan struct{}, 1),
		findingOthers: make(chan struct{}, 1),
		rate:          rate.NewLimiter(rate.Limit(perSecond), perSecond),
		outlets:       make(map[identity.Identifier][]*registration),
		standings:     make(map[process]*standing),
		perIdentity:   make(map[identity.Identifier]int),
		joins:         make(map[*join]struct{}),
		refusals:      make(map[code.Code]uint64),
		drained:       make(chan struct{}),
	}
	_, _ = rand.Read(s.spread[:]) // never fails
	return s, nil
}

// Serve accepts conns from ln, which it closes, and answers them until ctx
// ends. Then registrations and parked conns are closed with [code.Shutdown],
// joins are reset, and Serve returns nil when nothing that it started runs any
// more. To end joins gently, call [Server.Drain] first. An error is the
// listener's.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = ln.Close()
	})
	v := &serving{Server: s, pipes: new(pump.Pipes)}
	err := v.accept(ctx, ln)
	cancel()
	if stop() {
		_ = ln.Close()
	} else {
		<-closed
	}
	v.handlers.Wait()
	v.pipes.Close()
	return err
}

// serving is one call of Serve: what ends with it.
type serving struct {
	*Server
	pipes    *pump.Pipes
	handlers sync.WaitGroup
}

func (v *serving) accept(ctx context.Context, ln net.Listener) error {
	pause := time.Duration(0)
	for {
		if v.rate.Wait(ctx) != nil {
			return nil
		}
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			// The conn comes before the slot, so that nobody gives way to nobody: one
			// waits here, all others in the kernel, where they cost no descriptor.
			if !v.turns.Take(ctx, v.slots) {
				_ = sock.ResetClose(nc) // nothing was said on it
				return nil
			}
			v.handlers.Go(func() { v.handle(ctx, nc) })
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if !sock.AcceptAgain(err) {
			return fmt.Errorf("accepting: %w", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		v.cfg.Trace.AcceptPaused(err, pause)
		if !wait.Sleep(ctx, pause) {
			return nil
		}
	}
}

// A call is one authenticated conn with its request. It belongs to the
// goroutine of its handler.
type call struct {
	*serving
	nc     net.Conn
	in     *channel.Incoming
	peer   channel.Peer
	req    request
	ticket *ticket
	grant  uint64 // its ID once the request is allowed and recorded
}

// handle does the handshake on nc and then what is asked for.
func (v *serving) handle(ctx context.Context, nc net.Conn) {
	c, ok := v.greet(ctx, nc)
	if !ok {
		return
	}
	defer func() { c.ticket.release() }()
	switch c.req.Kind {
	case kindRegister:
		c.register(ctx)
	case kindPark:
		c.park(ctx)
	case kindConnect:
		c.connect(ctx)
	case kindExtend:
		c.extend(ctx)
	case kindFind:
		c.find(ctx)
	}
}

// greet brings a conn as far as its request, or ends it. It gives the
// handshake's slot back.
func (v *serving) greet(ctx context.Context, nc net.Conn) (*call, bool) {
	defer func() { <-v.slots }()
	// A conn on which this fails fails soon by itself.
	_ = sock.SetUserTimeout(nc, v.cfg.Timing.UserTimeout)
	turn, done := v.turns.Begin(ctx)
	in, err := channel.Respond(turn, nc, v.cfg.Local, channel.PurposeHop, v.cfg.Channel)
	done()
	if err != nil {
		v.cfg.Trace.HandshakeFailed(nc.RemoteAddr(), err)
		return nil, false
	}
	c := &call{serving: v, nc: nc, in: in, peer: in.Peer()}
	if c.req, err = parseRequest(in.Request()); err != nil {
		c.refuse(code.Protocol, err.Error())
		return nil, false
	}
	if c.ticket, err = v.admit(c.peer.Identifier); err != nil {
		c.refuse(code.Limit, err.Error())
		return nil, false
	}
	return c, true
}

// record has a request recorded that is allowed, or refuses it.
func (c *call) record() bool {
	g := Grant{ID: c.grants.Add(1), Peer: c.peer, Remote: c.nc.RemoteAddr(), Request: c.req.Kind.String(), Target: c.req.target(), Service: c.req.Service}
	if c.cfg.Audit != nil {
		if err := c.cfg.Audit(g); err != nil {
			c.refuse(code.AuditFailed, err.Error())
			return false
		}
	}
	c.grant = g.ID
	return true
}

// refuse answers the request with a refusal and ends the conn.
func (c *call) refuse(cd code.Code, reason string) { c.refuseWhy(cd, reason, "") }

// deny is refuse for an authorizer's error.
func (c *call) deny(cd code.Code, err error) {
	reason, why := told(err)
	c.refuseWhy(codeOf(cd, err), reason, why)
}

func (c *call) refuseWhy(cd code.Code, reason, why string) {
	c.mu.Lock()
	c.refusals[cd]++
	c.mu.Unlock()
	c.answerRefusal(Refusal{Code: cd, Reason: reason, Why: why})
}

// answerRefusal completes r, tells the trace and then the caller.
func (c *call) answerRefusal(r Refusal) {
	r.Peer, r.Remote, r.Request, r.Target, r.Service, r.Grant = c.peer, c.nc.RemoteAddr(), c.req.Kind.String(), c.req.target(), c.req.Service, c.grant
	c.cfg.Trace.Refused(r)
	_ = c.in.Refuse(r.Code, r.Reason) // a caller that does not hear it is gone
}

// target is what a request is about, for people.
func (r request) target() string {
	switch r.Kind {
	case kindConnect:
		return identity.Identifier(r.Outlet).String()
	case kindExtend:
		return r.Address
	default:
		return ""
	}
}

// A ticket is an authenticated conn's place in the limits. Whoever ends the
// conn releases it.
type ticket struct {
	s        *Server
	id       identity.Identifier
	rechecks int // the server's when the conn came
	once     sync.Once
}

// admit counts one more conn of id, or says which limit is reached.
func (s *Server) admit(id identity.Identifier) (*ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := s.cfg.Limits; {
	case s.conns >= l.Conns:
		return nil, fmt.Errorf("relay has %d conns, which is its limit", s.conns)
	case s.perIdentity[id] >= l.ConnsPerIdentity:
		return nil, fmt.Errorf("relay has %d conns of your identity, which is its limit", s.perIdentity[id])
	}
	s.conns++
	s.placed++
	s.perIdentity[id]++
	return &ticket{s: s, id: id, rechecks: s.rechecks}, nil
}

// release gives the place back; a nil ticket has none.
func (t *ticket) release() {
	if t == nil {
		return
	}
	t.once.Do(func() {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		t.s.conns--
		if t.s.perIdentity[t.id]--; t.s.perIdentity[t.id] == 0 {
			delete(t.s.perIdentity, t.id)
		}
	})
}

// drop ends a conn abruptly: its peer is gone, or is to notice at once.
func drop(nc net.Conn, conn *channel.Conn) {
	_ = sock.ResetClose(nc)
	_ = conn.Close()
}
