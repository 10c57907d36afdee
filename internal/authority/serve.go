package authority

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// ServiceName is what members open a stream to.
const ServiceName = "culvert.authority"

// Bounds of what [Authority.Serve] does for one stream. streams.go has how many
// there may be.
const (
	firstRequestTime  = time.Minute
	requestTime       = 10 * time.Second // from a request's first byte to its last
	pieceTime         = 10 * time.Second // for pieceLen bytes of an answer to be taken
	pieceLen          = 32 << 10
	requestsPerSecond = 2
	requestsAtOnce    = 16
)

// Serve answers one peer's requests on conn, in their order, and sends a member
// each new revocation list, until the peer ends its side (nil), ctx ends, or the
// peer breaks a bound, is refused for good, is revoked, or has not become a member
// within [EnrolTime] (a *[Refusal], of which the peer has been told, or not if it
// has not asked anything). It sets conn's deadlines and leaves closing it to the
// caller. When it returns, nothing of it runs any more.
func (a *Authority) Serve(ctx context.Context, peer identity.Identifier, conn net.Conn) error {
	known, err := a.store.isMember(peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &stream{authority: a, peer: peer, conn: &boundedConn{Conn: conn}, limit: rate.NewLimiter(requestsPerSecond, requestsAtOnce), end: cancel}
	if r := a.streams.enter(s, known); r != nil {
		return r
	}
	defer a.streams.leave(s)
	a.streams.reclass(peer, a.store) // it may have become one meanwhile, or be none any more
	return s.serve(ctx, cancel)
}

// A stream is one that is served.
type stream struct {
	authority *Authority
	peer      identity.Identifier
	conn      *boundedConn
	limit     *rate.Limiter
	end       func(cause error) // ends it
	deciding  atomic.Bool       // a request is being answered
	member    atomic.Bool       // the peer is one; changed under authority.streams.mu
	listed    atomic.Bool       // the peer is, or was, a member, and is sent new lists

	// Guarded by authority.streams.mu.
	number  uint64      // later streams have higher ones
	patient *time.Timer // ends a stranger's; nil for a member's
	left    bool        // it is not counted any more

	mu    sync.Mutex // held while something is written
	holds uint64     // number of the list that the peer has, as far as is known
}

// serve runs the two sides, and ends the other when one ends.
func (s *stream) serve(ctx context.Context, cancel context.CancelCauseFunc) error {
	stop := context.AfterFunc(ctx, s.conn.interrupt)
	defer stop()
	var pushing sync.WaitGroup
	pushing.Go(func() {
		if err := s.push(ctx); err != nil {
			cancel(err)
		}
	})
	err := s.answerAll(ctx)
	cause := context.Cause(ctx) // before it is cancelled here
	cancel(nil)
	pushing.Wait()
	// What one side has ended the other reports as a deadline that is over.
	if cause != nil {
		return cause
	}
	return err
}

// answerAll answers requests until there are no more.
func (s *stream) answerAll(ctx context.Context) error {
	r := bufio.NewReaderSize(s.conn, 4<<10)
	for first := true; ; first = false {
		wait := time.Duration(0)
		if first {
			wait = firstRequestTime
		}
		s.conn.readWithin(wait)
		if _, err := r.Peek(1); err != nil {
			return ending(err)
		}
		s.conn.readWithin(requestTime)
		id, request, err := credential.ReadRequest(r)
		if err != nil {
			return err
		}
		if err := s.limit.Wait(ctx); err != nil {
			return err
		}
		s.deciding.Store(true)
		err = s.answer(ctx, id, request)
		s.deciding.Store(false)
		if err != nil {
			return err
		}
	}
}

// ending returns nil for an end of the peer's side between two requests.
func ending(err error) error {
	if err == io.EOF {
		return nil
	}
	return fmt.Errorf("waiting for a request: %w", err)
}

// answer answers one request. It returns an error when there is to be no other.
func (s *stream) answer(ctx context.Context, id uint32, request credential.Request) error {
	a := s.authority
	if f, ok := request.(credential.FetchRevocations); ok {
		return s.fetched(id, f.Since)
	}
	var name string
	d := &Decision{Action: ActionRenew, Peer: s.peer}
	var bundle []byte
	var err error
	switch m := request.(type) {
	case credential.EnrollTicket:
		name = requestTicket
		d.Action, d.Ticket = ActionEnroll, m.ID
		bundle, err = a.enrollTicket(s.peer, m)
	case credential.EnrollKubernetes:
		name = requestKubernetes
		if !s.member.Load() {
			d.Action = ActionEnroll
		}
		bundle, err = a.enrollKubernetes(ctx, s.peer, m)
	case credential.Renew:
		name = requestRenew
		bundle, err = a.renew(s.peer)
	}
	if err != nil {
		return s.refuse(id, name, d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(id, credential.Issued{Bundle: bundle})
}

// refuse tells the peer why it does not get what it has asked for. What the peer
// can do nothing about is not told in detail, and ends the stream.
func (s *stream) refuse(id uint32, request string, d *Decision, err error) error {
	var r *Refusal
	if !errors.As(err, &r) {
		r = refuse(code.Internal, "the authority cannot say: see its log, and try again")
		r.Detail = err
	} else {
		err = r
	}
	if d.Refusal = r; !r.recorded {
		_ = s.authority.record(d) // a refusal stands
	}
	if t := s.authority.cfg.Trace.Refused; t != nil {
		t(s.peer, request, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed := s.writeLocked(id, credential.Refused{Code: r.Code, Reason: code.CutReason(code.Printable(r.Reason))}); failed != nil {
		return failed
	}
	switch r.Code {
	case code.Internal, code.IdentityRevoked:
		return err
	}
	return nil
}

// fetched answers what the peer is to know of revocations, if it is a member: a
// list has megabytes, and strangers are many.
func (s *stream) fetched(id uint32, since uint64) error {
	a := s.authority
	p := a.list()
	if p.list.Set().HasIdentifier(s.peer) {
		return s.refuse(id, requestFetch, &Decision{Action: ActionFetch, Peer: s.peer}, refuse(code.IdentityRevoked, "the authority has revoked the identifier %s, for ever: make a new identity, and enrol that", s.peer))
	}
	if !s.member.Load() {
		return s.refuse(id, requestFetch, &Decision{Action: ActionFetch, Peer: s.peer}, refuseStranger(s.peer))
	}
	answer, err := a.since(p, since)
	if err != nil {
		return s.refuse(id, requestFetch, &Decision{Action: ActionFetch, Peer: s.peer}, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = p.list.Number()
	return s.writeLocked(id, answer)
}

// push sends each new revocation list, until ctx ends or the peer is revoked.
func (s *stream) push(ctx context.Context) error {
	p := s.authority.list()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.replaced:
		}
		p = s.authority.list() // those between are of no use any more
		if err := s.pushList(p); err != nil {
			return fmt.Errorf("sending revocation list %d: %w", p.list.Number(), err)
		}
		if p.list.Set().HasIdentifier(s.peer) {
			return refuse(code.IdentityRevoked, "%s was revoked", s.peer)
		}
	}
}

// pushList sends a list that nobody has asked for, unless the peer has it or is
// none of those who get lists.
func (s *stream) pushList(p *published) error {
	s.mu.Lock()
	holds := s.holds
	s.mu.Unlock()
	if !s.listed.Load() || holds >= p.list.Number() {
		return nil
	}
	answer, err := s.authority.since(p, holds)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Meanwhile it may have fetched this one, or a newer.
	if s.holds >= p.list.Number() {
		return nil
	}
	if s.holds != holds {
		if answer, err = s.authority.since(p, s.holds); err != nil {
			return err
		}
	}
	s.holds = p.list.Number()
	return s.writeLocked(0, answer)
}

// writeLocked sends an answer in pieces, each of which the peer has to take in a
// time: so one that takes nothing is found, and one that is slow is not.
func (s *stream) writeLocked(id uint32, m credential.Answer) error {
	head, body, err := credential.EncodeAnswer(id, m)
	if err != nil {
		return err
	}
	first := min(len(body), pieceLen)
	piece, rest := append(head, body[:first]...), body[first:]
	for len(piece) > 0 {
		s.conn.writeWithin(pieceTime)
		if _, err := s.conn.Write(piece); err != nil {
			return fmt.Errorf("writing answer: %w", err)
		}
		n := min(len(rest), pieceLen)
		piece, rest = rest[:n], rest[n:]
	}
	return nil
}

// A boundedConn is a conn whose deadlines nobody sets any more once it was
// interrupted.
type boundedConn struct {
	net.Conn
	mu   sync.Mutex
	over bool
}

// interrupt frees Reads and Writes, those to come too.
func (c *boundedConn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	_ = c.SetDeadline(time.Unix(1, 0)) // a conn that cannot has ended
}

// readWithin bounds Reads; 0 for no bound.
func (c *boundedConn) readWithin(d time.Duration) { c.set(c.SetReadDeadline, d) }

// writeWithin bounds Writes.
func (c *boundedConn) writeWithin(d time.Duration) { c.set(c.SetWriteDeadline, d) }

func (c *boundedConn) set(deadline func(time.Time) error, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	var t time.Time
	if d > 0 {
		t = time.Now().Add(d)
	}
	_ = deadline(t) // a conn that cannot has ended, as the next call says
}
