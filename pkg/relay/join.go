package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A join is two legs between which the relay moves bytes.
type join struct {
	kind           requestKind
	caller         channel.Peer
	outlet         channel.Peer // of connect: as the registration has proven it that its spare conn was of
	grant          uint64
	target         string
	targetInstance string
	since          time.Time
	counters       pump.Counters
	cancel         context.CancelCauseFunc
	done           chan struct{}
}

// join answers the caller with ok and moves bytes between it and far, which it
// owns, until the join ends. What was read from far already is first.
func (c *call) join(ctx context.Context, j *join, ok message, far net.Conn, first []byte) {
	ctx, j.cancel = context.WithCancelCause(ctx)
	defer j.cancel(nil)
	j.since, j.done = time.Now(), make(chan struct{})
	if !c.begin(j) {
		_ = sock.ResetClose(far)
		c.refuse(code.Draining, drainingReason)
		return
	}
	if c.outdated() {
		if err := c.allowed(j); err != nil {
			c.finish(j, func() {})
			_ = sock.ResetClose(far)
			c.decline(err)
			return
		}
	}
	near, early, err := c.answer(ok)
	if err != nil {
		c.finish(j, func() {})
		_ = sock.ResetClose(far)
		c.cfg.Trace.Abandoned(c.peer, c.req.Kind.String(), c.grant, err)
		return
	}
	c.carry(ctx, j, near, far, early, first)
}

// carry moves bytes between the legs of a join that has begun until it ends.
func (v *serving) carry(ctx context.Context, j *join, near, far net.Conn, fromNear, fromFar []byte) {
	v.cfg.Trace.Joined(j.status())
	err := v.move(ctx, j, near, far, fromNear, fromFar)
	v.finish(j, func() { v.cfg.Trace.JoinEnded(j.status(), joinCode(ctx, err), err) })
}

// joinCode says why a join ended, whose context is ctx.
func joinCode(ctx context.Context, err error) code.Code {
	var declined *declinedError
	switch {
	case err == nil:
		return code.OK
	case errors.Is(err, ErrDraining):
		return code.Draining
	case errors.As(err, &declined): // by Recheck
		return declined.code
	case ctx.Err() != nil:
		return code.Shutdown
	case errors.Is(err, pump.ErrIdle):
		return code.Timeout
	default:
		return code.Aborted
	}
}

// answer writes ok, as this side's last record, and ends the records.
func (c *call) answer(ok message) (net.Conn, []byte, error) {
	conn := c.in.Accept()
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err := writeMessage(conn, ok); err != nil {
		drop(c.nc, conn)
		return nil, nil, fmt.Errorf("answering: %w", err)
	}
	near, early, err := conn.Detach()
	if err != nil {
		drop(c.nc, conn)
		return nil, nil, fmt.Errorf("answering: %w", err)
	}
	return near, early, nil
}

// begin counts j among the joins, unless the relay drains.
func (s *Server) begin(j *join) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.joins[j] = struct{}{}
	s.joined++
	s.standLocked(j)
	return true
}

// finish ends begin. Whoever waits for the join's end hears of it after tell.
func (s *Server) finish(j *join, tell func()) {
	s.mu.Lock()
	delete(s.joins, j)
	s.unstandLocked(j)
	s.toTarget += j.counters.AToB.Load()
	s.toCaller += j.counters.BToA.Load()
	s.mu.Unlock()
	tell()
	close(j.done)
}

// move carries bytes between the caller's leg and the far one until both have
// ended or one has failed, which resets the other.
func (v *serving) move(ctx context.Context, j *join, near, far net.Conn, fromNear, fromFar []byte) error {
	a, aok := near.(*net.TCPConn)
	b, bok := far.(*net.TCPConn)
	if aok && bok {
		return pump.Splice(ctx, a, b, pump.Options{
			Idle: v.cfg.Timing.Idle, Rate: v.cfg.Limits.BytesPerSecond, Pipes: v.pipes, Counters: &j.counters,
			FirstA: fromNear, FirstB: fromFar,
		}).Err
	}
	// Some other transport: idle time and rate do not bound it.
	return pump.Both(ctx, &countedLeg{leg{near, fromNear}, &j.counters.BToA}, &countedLeg{leg{far, fromFar}, &j.counters.AToB}).Err
}
