package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// Bounds of what a relay can tell an agent to do.
const (
	minLease, maxLease = 200 * time.Millisecond, 10 * time.Minute
	minPing, maxPing   = 10 * time.Millisecond, 5 * time.Minute
	// parkTries is how often parking one conn is tried.
	parkTries = 3
	firstPark = 100 * time.Millisecond // the pause after the first, doubled then
	// maxOwed bounds what a relay can ask for ahead.
	maxOwed = 1 << 10
)

// A session is one registration, from the agent's side: the control
// conversation and the conns that are parked for it.
type session struct {
	a     *Agent
	st    *station
	conn  *channel.Conn
	relay channel.Peer
	renew time.Duration
	// renewing is closed when the registration is to be made anew.
	renewing <-chan struct{}

	handle func(nc net.Conn) // takes a raw conn over, and returns at once
	parks  sync.WaitGroup

	mu     sync.Mutex
	parked int // conns that are parked or about to be, at most MaxSpares
	owed   int // conns that the relay has asked for beyond these
}

// session registers at st and keeps the registration, and those that [Agent.Renew]
// puts in its place, until one is lost or ctx ends.
func (a *Agent) session(ctx context.Context, st *station) error {
	s, err := a.register(ctx, st)
	if err != nil {
		a.set(st, func(s *AddressStatus) { s.Err = err })
		return err
	}
	for s != nil {
		a.cfg.Trace.Registered(st.address, s.relay)
		s, err = s.keep(ctx)
	}
	a.set(st, func(s *AddressStatus) {
		*s = AddressStatus{Address: st.address, Since: time.Now(), Err: err}
	})
	return err
}

// keep keeps the registration until another one has taken its place, which it
// returns, or it is lost or ctx ends, which is the error.
func (s *session) keep(ctx context.Context) (next *session, err error) {
	a := s.a
	s.handle = func(nc net.Conn) {
		a.handlers.Go(func() { a.cfg.Handle(ctx, nc, s.st.address) })
	}
	sctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.speak(sctx) })
	var leave error
	wg.Go(func() {
		if next, leave = s.replace(ctx, sctx); next != nil || leave != nil {
			cancel() // the relay has ended a replaced one already, if it is the same process
		}
	})
	err = s.listen(sctx)
	cancel()
	wg.Wait()
	s.parks.Wait()
	if leave != nil {
		err = leave
	}
	return next, err
}

// replace waits until the registration is to be made anew, and does so. It returns
// nothing when live, the registration's life, ends first. An attempt that has begun
// goes on then: it may be what has ended the registration. The error says why the
// relay is to be left.
func (s *session) replace(ctx, live context.Context) (*session, error) {
	select {
	case <-s.renewing:
	case <-live.Done():
		return nil, nil
	}
	for retry := s.a.newBackoff(); ; {
		if err := s.admitted(); err != nil {
			return nil, err
		}
		next, err := s.a.register(ctx, s.st)
		if err == nil {
			return next, nil
		}
		if !wait.Sleep(live, retry.NextBackOff()) {
			return nil, nil
		}
	}
}

// admitted returns nil while the relay, and those on the way to it, may be used.
func (s *session) admitted() error {
	if err := s.a.dialer.Local.Admit(s.relay); err != nil {
		return err
	}
	return s.a.dialer.admits(s.a.cfg.Route)
}

func (a *Agent) register(ctx context.Context, st *station) (*session, error) {
	a.mu.Lock()
	renewing := a.renewing // before the handshake, which shows what there is from here on
	a.mu.Unlock()
	nc, err := a.find.reach(ctx, st.address)
	if err != nil {
		return nil, err
	}
	hop := a.cfg.Route[len(a.cfg.Route)-1]
	conn, m, err := a.dialer.ask(ctx, nc, hop.Identifier, request{Kind: kindRegister})
	if err != nil {
		return nil, err
	}
	s := &session{a: a, st: st, conn: conn, relay: conn.Peer(), renew: fromMillis(m.Lease, minLease, maxLease) / 3, renewing: renewing}
	a.mu.Lock()
	defer a.mu.Unlock()
	st.instance = s.relay.Instance
	st.status = AddressStatus{Address: st.address, Registered: true, Since: time.Now(), Spares: st.status.Spares}
	return s, nil
}

// speak renews the lease, tells the relay that the outlet drains, and closes
// when ctx ends.
func (s *session) speak(ctx context.Context) {
	t := time.NewTicker(s.renew)
	defer t.Stop()
	draining := s.a.draining
	for {
		m := message{Kind: msgRenew}
		select {
		case <-ctx.Done():
			// Also the way by which listen is freed.
			_ = s.conn.CloseWithReason(code.Shutdown, "outlet deregisters")
			return
		case <-draining:
			draining = nil
			m.Kind = msgDraining
		case <-t.C:
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		if err := writeMessage(s.conn, m); err != nil {
			// listen will hear of it, at the latest when renewals go unanswered.
			_ = s.conn.SetReadDeadline(past)
		}
	}
}

// listen follows the relay's side of the control conversation until it ends,
// and says why it did.
func (s *session) listen(ctx context.Context) error {
	for {
		// An answer to every renewal is due.
		_ = s.conn.SetReadDeadline(time.Now().Add(2*s.renew + s.renew/2))
		m, err := readMessage(s.conn)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("relay does not answer: %w", err)
		case err != nil:
			return err
		}
		switch m.Kind {
		case msgRenewed:
		case msgMore:
			s.park(ctx, int(m.Count))
		case msgDraining:
			s.a.set(s.st, func(st *AddressStatus) { st.Draining = true })
			s.a.cfg.Trace.Draining(s.st.address)
		default:
			err := fmt.Errorf("%w: of kind %d from a relay", errMessage, m.Kind)
			_ = s.conn.CloseWithReason(code.Protocol, err.Error())
			return err
		}
	}
}

// park starts parking n conns: as many as there is room for, the rest when
// there is.
func (s *session) park(ctx context.Context, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed = min(s.owed+n, maxOwed)
	s.parkOwedLocked(ctx)
}

func (s *session) parkOwedLocked(ctx context.Context) {
	for ctx.Err() == nil && s.owed > 0 && s.parked < s.a.cfg.MaxSpares {
		s.owed--
		s.parked++
		s.parks.Go(func() { s.keepParked(ctx) })
	}
}

// keepParked parks one conn, again when it dies, until it is used, the relay
// has no use for it, or ctx ends.
func (s *session) keepParked(ctx context.Context) {
	nc := s.parkAndWait(ctx)
	s.mu.Lock()
	s.parked--
	s.parkOwedLocked(ctx)
	s.mu.Unlock()
	if nc != nil {
		s.handle(nc)
	}
}

// parkAndWait returns a raw conn that a caller was joined to, or nil.
func (s *session) parkAndWait(ctx context.Context) net.Conn {
	pause := firstPark
	for tries := 1; ; tries++ {
		conn, ping, err := s.parkOne(ctx)
		if err == nil {
			var nc net.Conn
			if nc, err = s.wait(ctx, conn, ping); err == nil {
				s.a.cfg.Trace.Joined(s.st.address)
				return nc
			}
			if errors.Is(err, channel.ErrDead) {
				tries, pause = 0, firstPark // it was parked: begin anew
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		s.a.cfg.Trace.ParkFailed(s.st.address, err)
		var closed *channel.CloseError
		if tries >= parkTries || refusedBy(err) != nil || errors.As(err, &closed) {
			return nil // the relay asks again when it wants one
		}
		if !wait.Sleep(ctx, pause) {
			return nil
		}
		pause *= 2
	}
}

// parkOne makes a conn that is parked at the session's relay.
func (s *session) parkOne(ctx context.Context) (*channel.Conn, time.Duration, error) {
	nc, err := s.a.find.reach(ctx, s.st.address)
	if err != nil {
		return nil, 0, err
	}
	conn, m, err := s.a.dialer.ask(ctx, nc, s.relay.Identifier, request{Kind: kindPark})
	if err != nil {
		return nil, 0, err
	}
	if conn.Peer().Instance != s.relay.Instance {
		_ = conn.Close()
		return nil, 0, fmt.Errorf("%s is another relay process than the one registered at", s.st.address)
	}
	return conn, fromMillis(m.Ping, minPing, maxPing), nil
}

// wait keeps a parked conn until a caller is joined to it, and returns it raw.
func (s *session) wait(ctx context.Context, conn *channel.Conn, ping time.Duration) (net.Conn, error) {
	// Only the relay pings. Two of its intervals without anything, and half of
	// one for the way, mean that it is gone.
	conn.SetKeepAlive(0, 2*ping+ping/2)
	s.a.set(s.st, func(st *AddressStatus) { st.Spares++ })
	defer s.a.set(s.st, func(st *AddressStatus) { st.Spares-- })
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(past) })
	m, err := readMessage(conn)
	stop()
	if err == nil && m.Kind != msgGo {
		err = fmt.Errorf("%w: of kind %d on a parked conn", errMessage, m.Kind)
	}
	if err != nil {
		cd, reason := code.Shutdown, "outlet takes its parked conn back"
		if errors.Is(err, errMessage) {
			cd, reason = code.Protocol, err.Error()
		}
		_ = conn.CloseWithReason(cd, reason)
		return nil, err
	}
	// going is this side's last record.
	conn.SetKeepAlive(0, 0)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err := writeMessage(conn, message{Kind: msgGoing}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	nc, early, err := conn.Detach()
	if err == nil && len(early) > 0 {
		// A caller is told after going has come.
		_ = nc.Close()
		err = fmt.Errorf("%w: %d bytes before going was sent", errMessage, len(early))
	}
	if err != nil {
		return nil, err
	}
	return nc, nil
}
