package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// sparesOver is how many parked conns more than wanted are kept: both sides may
// have replaced the same dead one.
const sparesOver = SpareConns

var (
	errRetired = errors.New("its registration ended")
	errNoGoing = errors.New("it did not answer when it was wanted")
)

// A spare is a parked conn. Its handler reads from it until it is wanted and
// has answered; then it is the taker's, with its ticket.
type spare struct {
	r       *registration
	nc      net.Conn
	conn    *channel.Conn
	ticket  *ticket
	verdict chan error // of the handler to the taker, once: nil says going was read

	// Set by use: the conn without its records, and what was read from it.
	raw   net.Conn
	first []byte

	// Guarded by r.s.mu.
	taken   bool
	retired *ending
}

// park serves one parked conn until it is wanted or ends.
func (c *call) park(ctx context.Context) {
	if !c.mayOffer() {
		return
	}
	c.mu.Lock()
	r, cd, reason := c.registrationToFeedLocked()
	c.mu.Unlock()
	if r == nil {
		c.refuse(cd, reason)
		return
	}
	conn := c.in.Accept()
	// This side alone pings: the outlet answers inside its Read, and so going
	// is the last that it sends.
	conn.SetKeepAlive(c.cfg.Timing.Ping, 2*c.cfg.Timing.Ping)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err := writeMessage(conn, message{Kind: msgOK, Ping: millis(c.cfg.Timing.Ping)}); err != nil {
		drop(c.nc, conn)
		return
	}
	sp := &spare{r: r, nc: c.nc, conn: conn, ticket: c.ticket, verdict: make(chan error, 1)}
	c.offer(sp)
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		sp.retireLocked(code.Shutdown, "relay is stopping")
	})
	m, err := readMessage(conn)
	stop()
	if err == nil && m.Kind != msgGoing {
		err = fmt.Errorf("%w: of kind %d on a parked conn", errMessage, m.Kind)
	}
	c.mu.Lock()
	taken, retired := sp.taken, sp.retired
	if taken {
		sp.verdict <- err
	} else {
		sp.taken = true // nobody's any more
		r.spares = slices.DeleteFunc(r.spares, func(o *spare) bool { return o == sp })
		r.kickWriter()
	}
	c.mu.Unlock()
	if taken {
		c.ticket = nil // the taker's, like the conn
		return
	}
	c.unpark(conn, retired, err)
}

// unpark ends a parked conn that nobody has wanted.
func (c *call) unpark(conn *channel.Conn, retired *ending, err error) {
	if retired != nil {
		_ = conn.CloseWithReason(retired.code, retired.reason)
		return
	}
	var closed *channel.CloseError
	switch {
	case err == nil:
		err = fmt.Errorf("%w: going before go", errMessage)
		fallthrough
	case errors.Is(err, errMessage):
		_ = conn.CloseWithReason(code.Protocol, err.Error())
	case errors.Is(err, io.EOF), errors.As(err, &closed):
		_ = conn.Close()
	default:
		drop(c.nc, conn)
	}
	c.cfg.Trace.SpareLost(c.peer, err)
}

// registrationToFeedLocked returns the registration that the caller's conn is
// for, or why it is not wanted.
func (c *call) registrationToFeedLocked() (*registration, code.Code, string) {
	r := c.findLocked(c.peer.Identifier, c.peer.Instance)
	switch {
	case c.Server.draining:
		return nil, code.Draining, drainingReason
	case r == nil:
		return nil, code.NotRegistered, "this instance is not registered here"
	case len(r.spares) >= SpareConns+sparesOver+len(r.waiting):
		return nil, code.Limit, fmt.Sprintf("%d conns are parked, which is enough", len(r.spares))
	}
	return r, code.OK, ""
}

// offer gives sp to the first caller that waits for one, or keeps it.
func (s *Server) offer(sp *spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp.r.cameLocked()
	s.keepLocked(sp)
}

// giveBack returns a spare that its taker has not used after all.
func (s *Server) giveBack(sp *spare) {
	s.mu.Lock()
	select {
	case err := <-sp.verdict:
		// It ended meanwhile, and has no handler any more.
		s.mu.Unlock()
		sp.discard(err)
	default:
		defer s.mu.Unlock()
		sp.taken = false
		s.keepLocked(sp)
	}
}

// keepLocked hands a spare that is nobody's on, or keeps it.
func (s *Server) keepLocked(sp *spare) {
	r := sp.r
	switch {
	case r.ending != nil:
		sp.retireLocked(r.ending.code, r.ending.reason)
	case len(r.waiting) > 0:
		sp.taken = true
		r.waiting[0].spare <- sp
		r.waiting = slices.Delete(r.waiting, 0, 1)
	default:
		r.spares = append(r.spares, sp)
	}
}

// popLocked takes the registration's oldest spare conn, nil when there is none.
func (r *registration) popLocked() *spare {
	if len(r.spares) == 0 {
		return nil
	}
	sp := r.spares[0]
	r.spares = slices.Delete(r.spares, 0, 1)
	sp.taken = true
	r.kickWriter()
	return sp
}

// retireLocked makes the handler of a spare that nobody has taken close it.
func (sp *spare) retireLocked(cd code.Code, reason string) {
	if sp.taken || sp.retired != nil {
		return
	}
	sp.retired = &ending{code: cd, reason: reason, err: errRetired}
	_ = sp.conn.SetReadDeadline(past)
}

// use wakes a taken spare: go, and going within the time, and nothing behind
// it. On success the conn is raw, and the taker's; otherwise it is ended.
func (sp *spare) use(ctx context.Context, within time.Duration) error {
	err := sp.wake(ctx, within)
	if err == nil {
		sp.raw, sp.first, err = sp.conn.Detach()
	}
	if err != nil {
		sp.discard(err)
	}
	return err
}

// discard ends a taken spare.
func (sp *spare) discard(err error) {
	drop(sp.nc, sp.conn)
	sp.ticket.release()
	sp.r.s.cfg.Trace.SpareLost(sp.r.peer, err)
}

func (sp *spare) wake(ctx context.Context, within time.Duration) error {
	// A PING that is due already still comes before go; afterwards there is
	// none, since the outlet answers no more.
	sp.conn.SetKeepAlive(0, 0)
	_ = sp.conn.SetWriteDeadline(time.Now().Add(within))
	if err := writeMessage(sp.conn, message{Kind: msgGo}); err != nil {
		return err
	}
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case err := <-sp.verdict:
		return err
	case <-t.C:
		return errNoGoing
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
