package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A registration is one outlet instance on offer, with its control
// conversation. Two goroutines serve it: read reads, write is the only one
// that writes and closes.
type registration struct {
	s     *Server
	peer  channel.Peer
	conn  *channel.Conn
	since time.Time
	grant uint64
	kick  chan struct{} // tells write that there may be something to say
	done  chan struct{} // closed with ending

	// Guarded by s.mu.
	ending   *ending
	spares   []*spare  // the oldest first
	waiting  []*waiter // the first come first
	asked    int       // conns asked for with more that have not come yet
	askedLow int       // the least that asked was since lowSince
	lowSince time.Time
	renewed  bool // a renewal is to be confirmed
	told     bool // that the relay drains
	draining bool // by the outlet's wish
}

// maxAsked bounds the conns that an outlet is asked for and has not parked yet:
// many callers are served a few at a time, not all at once in the end.
const maxAsked = 32

// An ending is why a registration ends.
type ending struct {
	code   code.Code
	reason string // for the outlet
	err    error  // for the trace
}

// register serves an outlet's control conversation until it ends.
func (c *call) register(ctx context.Context) {
	if !c.mayOffer() || !c.record() {
		return
	}
	r := &registration{
		s: c.Server, peer: c.peer, conn: c.in.Accept(), since: time.Now(), grant: c.grant,
		kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if cd, reason := c.enroll(r); cd != code.OK {
		c.refuse(cd, reason)
		return
	}
	if c.outdated() {
		r.recheck()
	}
	stop := context.AfterFunc(ctx, func() {
		r.end(ending{code: code.Shutdown, reason: "relay is stopping", err: context.Cause(ctx)})
	})
	var wg sync.WaitGroup
	wg.Go(r.write)
	r.read()
	wg.Wait()
	stop()
}

// mayOffer asks the authorizer, and refuses. It stands before register and
// before park: whoever may not offer an outlet any more cannot feed one either.
func (c *call) mayOffer() bool {
	err := errors.New("relay lets nobody offer an outlet")
	if c.cfg.Register != nil {
		err = c.cfg.Register(c.peer)
	}
	if err != nil {
		c.deny(code.RegisterDenied, err)
		return false
	}
	return true
}

// enroll puts r into the table, in the place of the same instance's older
// registration, which it ends.
func (s *Server) enroll(r *registration) (code.Code, string) {
	var told func()
	s.mu.Lock()
	old := s.findLocked(r.peer.Identifier, r.peer.Instance)
	if old != nil && !s.draining {
		told = old.endLocked(ending{
			code: code.Replaced, reason: "the same instance registered again",
			err: fmt.Errorf("replaced by a registration from %s", r.conn.RemoteAddr()),
		})
	}
	cd, reason := s.enrollLocked(r)
	status := r.statusLocked()
	s.mu.Unlock()
	if told != nil {
		told()
	}
	if cd == code.OK {
		s.cfg.Trace.Registered(status)
	}
	return cd, reason
}

func (s *Server) enrollLocked(r *registration) (code.Code, string) {
	switch l, n := s.cfg.Limits, len(s.outlets[r.peer.Identifier]); {
	case s.draining:
		return code.Draining, drainingReason
	case s.registrations >= l.Registrations:
		return code.Limit, fmt.Sprintf("relay has %d registrations, which is its limit", s.registrations)
	case n >= l.RegistrationsPerIdentity:
		return code.Limit, fmt.Sprintf("relay has %d instances of your identity registered, which is its limit", n)
	}
	s.outlets[r.peer.Identifier] = append(s.outlets[r.peer.Identifier], r)
	s.registrations++
	s.provedLocked(r.peer)
	r.kickWriter()
	return code.OK, ""
}

const drainingReason = "relay is going away"

func (s *Server) findLocked(id identity.Identifier, instance channel.Instance) *registration {
	for _, r := range s.outlets[id] {
		if r.peer.Instance == instance {
			return r
		}
	}
	return nil
}

// end takes the registration out of the table, with its spare conns, and lets
// everybody who waits for it know. The first call counts.
func (r *registration) end(e ending) {
	r.s.mu.Lock()
	told := r.endLocked(e)
	r.s.mu.Unlock()
	told()
}

// endLocked is end; the caller calls what it returns once mu is free.
func (r *registration) endLocked(e ending) (told func()) {
	if r.ending != nil {
		return func() {}
	}
	r.ending = &e
	close(r.done)
	s, id, status := r.s, r.peer.Identifier, r.statusLocked()
	s.outlets[id] = slices.DeleteFunc(s.outlets[id], func(o *registration) bool { return o == r })
	if len(s.outlets[id]) == 0 {
		delete(s.outlets, id)
	}
	s.registrations--
	for _, sp := range r.spares {
		sp.retireLocked(e.code, e.reason)
	}
	r.spares = nil
	return func() { s.cfg.Trace.RegistrationEnded(status, e.code, e.err) }
}

// kickWriter makes write look again. It never blocks.
func (r *registration) kickWriter() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// read follows the outlet's side of the conversation until it ends.
func (r *registration) read() {
	lease := r.s.cfg.Timing.Lease
	for {
		_ = r.conn.SetReadDeadline(time.Now().Add(lease))
		m, err := readMessage(r.conn)
		switch {
		case err == nil && m.Kind == msgRenew:
			r.renew()
		case err == nil && m.Kind == msgDraining:
			r.drain()
		case err == nil:
			err = fmt.Errorf("%w: of kind %d in a registration", errMessage, m.Kind)
			fallthrough
		default:
			r.end(endingOf(err, lease))
			return
		}
	}
}

// endingOf says what an error of the control conversation means.
func endingOf(err error, lease time.Duration) ending {
	var closed *channel.CloseError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ending{code.LeaseExpired, "registration was not renewed", fmt.Errorf("not renewed within %s", lease)}
	case errors.Is(err, errMessage):
		return ending{code.Protocol, err.Error(), err}
	case errors.Is(err, io.EOF):
		return ending{code.OK, "", nil}
	case errors.As(err, &closed):
		return ending{closed.Code, "", err}
	default:
		return ending{code.Dead, "control conn is lost", err}
	}
}

func (r *registration) renew() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.renewed = true
	// What was asked for that long ago and has not come will not come.
	if time.Since(r.lowSince) > r.s.cfg.Timing.Hold {
		r.asked -= r.askedLow
		r.askedLow, r.lowSince = r.asked, time.Now()
	}
	r.kickWriter()
}

func (r *registration) drain() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.draining = true
}

// write says what there is to say, until the registration ends; then it says
// why and closes.
func (r *registration) write() {
	if err := r.say(message{Kind: msgOK, Lease: millis(r.s.cfg.Timing.Lease)}); err != nil {
		r.end(ending{code.Dead, "control conn is lost", err})
	}
	for {
		select {
		case <-r.done:
			_ = r.conn.CloseWithReason(r.ending.code, r.ending.reason)
			return
		case <-r.kick:
		}
		for _, m := range r.due() {
			if err := r.say(m); err != nil {
				r.end(ending{code.Dead, "control conn is lost", err})
			}
		}
	}
}

func (r *registration) say(m message) error {
	// The outlet may not read: writes are answers to its own renewals, too.
	_ = r.conn.SetWriteDeadline(time.Now().Add(writeTime))
	return writeMessage(r.conn, m)
}

// due returns what is to be said now. Many renewals are confirmed once.
func (r *registration) due() []message {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.ending != nil {
		return nil
	}
	var ms []message
	if r.renewed {
		r.renewed = false
		ms = append(ms, message{Kind: msgRenewed})
	}
	if r.s.draining && !r.told {
		r.told = true
		ms = append(ms, message{Kind: msgDraining})
	}
	if n := min(SpareConns+len(r.waiting)-len(r.spares), maxAsked) - r.asked; n > 0 && !r.s.draining {
		if r.asked == 0 {
			r.askedLow, r.lowSince = n, time.Now()
		}
		r.asked += n
		ms = append(ms, message{Kind: msgMore, Count: uint16(n)})
	}
	return ms
}

// cameLocked counts a conn that has been parked.
func (r *registration) cameLocked() {
	r.asked = max(0, r.asked-1)
	r.askedLow = min(r.askedLow, r.asked)
	r.kickWriter() // for those that were too many to ask for at once
}
