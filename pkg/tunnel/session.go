// Package tunnel owns the streams on a channel: a yamux session behind an
// adapter, a fair gate before it, and inside each stream small frames that keep
// an end, an abort and a refusal apart, which yamux cannot. The inlet's side
// opens streams, the outlet's side accepts them.
//
// It is the only importer of yamux. It does not dial, does not decide who may
// use a service, and does not log.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Carrier is what a session runs on: an authenticated, ordered, reliable
// conn. *channel.Channel is one. Moving its deadlines into the past must free
// its Read and Write.
type Carrier interface {
	net.Conn
	Peer() channel.Peer
	CloseWithReason(c code.Code, reason string) error
}

// A pacer is a Carrier that knows how much may wait before it: on a slow path
// more is only delay, for small frames too; and that wants to know of streams of
// small frames, to have less on its way before them. *channel.Channel is one.
type pacer interface {
	Backlog() int
	Brisk()
}

// Config holds a session's settings. The zero value is the default.
type Config struct {
	MaxStreams int // open at once; 0 means 10,000
	// Unanswered is how many streams may be known beside those: not answered yet, or
	// refused and not closed by the peer, which it may never do; each costs a KiB.
	// Beyond it the session ends. The opening side has to keep to its peer's; 0 means
	// 1,024, which is the most.
	Unanswered int
	// Patience is for what is on its way, a new stream's OPEN, an aborted one's RST, or
	// the answer to a PROBE: more than a carrier may pause; 0 means 10 s.
	Patience time.Duration
	// Window is the most that the peer may have sent in one stream and this side not
	// have read, in bytes: what a reader that has stalled can cost. A stream begins
	// with 256 KiB, which is the least; 0 means 8 MiB, which is the most.
	Window int
}

const (
	defaultMaxStreams = 10_000
	backlog           = 1024 // streams opened and not yet answered
	controlStream     = 1
)

// A Session is the mux on one carrier. Everything but Run may be called from
// any goroutine, before, while and after Run runs.
type Session struct {
	carrier Carrier
	client  bool
	cfg     Config
	adapter *adapter
	brisk   func()    // the carrier's
	base    time.Time // times of streams are nanoseconds since
	gate    gate
	control control

	started  chan struct{} // closed when mux is set and the control stream is its first
	mux      *yamux.Session
	stopping chan struct{} // closed by Close
	lost     chan struct{} // closed when cause is set: the session is over
	ended    chan struct{} // closed when Run returns
	cause    error

	stopOnce   sync.Once
	stopCode   code.Code
	stopReason string
	stopErr    error

	draining  chan struct{} // the peer drains
	drainOnce sync.Once
	moving    chan struct{} // capacity 1: the peer asks for another path

	slots    chan struct{} // one per open stream, at most cfg.MaxStreams
	unacked  chan struct{} // one per stream not yet answered
	requests chan *Request

	mu      sync.Mutex
	streams map[uint32]*Stream
	over    bool // nothing is started any more

	recent recent

	answers atomic.Uint32 // of the peer: whether it answers PROBE

	wg sync.WaitGroup // all goroutines of the session but Run's
}

// NewClient returns the session of the side that opens streams. It starts
// nothing; Run does. The session owns c.
func NewClient(c Carrier, cfg Config) *Session { return newSession(c, cfg, true) }

// NewServer returns the session of the side that accepts streams. It starts
// nothing; Run does. The session owns c.
func NewServer(c Carrier, cfg Config) *Session { return newSession(c, cfg, false) }

func newSession(c Carrier, cfg Config, client bool) *Session {
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	if cfg.Unanswered <= 0 {
		cfg.Unanswered = backlog
	}
	cfg.Unanswered = min(cfg.Unanswered, backlog)
	if cfg.Window <= 0 {
		cfg.Window = maxWindow
	}
	cfg.Window = min(max(cfg.Window, initialWindow), maxWindow)
	s := &Session{
		carrier: c, client: client, cfg: cfg, base: time.Now(),
		adapter:  newAdapter(c, client, cfg.MaxStreams+cfg.Unanswered+2),
		gate:     gate{free: gateBytes},
		started:  make(chan struct{}),
		stopping: make(chan struct{}),
		lost:     make(chan struct{}),
		ended:    make(chan struct{}),
		draining: make(chan struct{}),
		moving:   make(chan struct{}, 1),
		slots:    make(chan struct{}, cfg.MaxStreams),
		unacked:  make(chan struct{}, cfg.Unanswered),
		requests: make(chan *Request),
		streams:  make(map[uint32]*Stream),
		brisk:    func() {},
		recent:   recent{added: make(chan struct{}, 1)},
	}
	s.adapter.more = s.gate.more
	if p, ok := c.(pacer); ok {
		s.gate.backlog, s.brisk = p.Backlog, p.Brisk
	}
	s.control.init()
	return s
}

func muxConfig(window int) *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          backlog,
		EnableKeepAlive:        false,     // the channel alone judges liveness
		KeepAliveInterval:      time.Hour, // unused, but must be positive
		ConnectionWriteTimeout: 365 * 24 * time.Hour,
		MaxStreamWindowSize:    uint32(window),
		LogOutput:              io.Discard,
	}
}

// Run serves the session until it is over and returns why: nil after Close
// with code.OK, a *ClosedError with another, ctx's cause when ctx ended it. When it returns, every stream
// has failed or ended, the carrier is closed, and nothing of the session runs
// any more. It may be called once.
func (s *Session) Run(ctx context.Context) error {
	open := yamux.Server
	if s.client {
		open = yamux.Client
	}
	mux, err := open(s.adapter, muxConfig(s.cfg.Window))
	if err != nil {
		return fmt.Errorf("starting the mux: %w", err)
	}
	s.mux = mux
	s.spawn(s.controlLoop)
	if !s.client {
		s.spawn(s.acceptLoop)
	}
	s.watch(ctx)
	s.finish()
	return s.cause
}

// watch returns when the session is to end, and looks after its streams' memory
// until then.
func (s *Session) watch(ctx context.Context) {
	look := time.NewTimer(quietAfter)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			s.stop(code.Shutdown, "", context.Cause(ctx))
			return
		case <-s.stopping:
			return
		case <-s.adapter.broke:
			s.lose()
			return
		case <-s.mux.CloseChan():
			s.lose()
			return
		case <-s.recent.added:
			look.Reset(quietAfter)
		case <-look.C:
			// Not here: the mux keeps a buffer locked for as long as the rest of a
			// frame takes to come, and only this goroutine can end that.
			s.spawn(s.recent.settle)
		}
	}
}

// lose ends the session for what the carrier or the peer did.
func (s *Session) lose() {
	cause := s.adapter.cause()
	switch {
	case cause == nil:
		// Neither the carrier nor the adapter: the mux itself found something
		// bad in the peer's frames that the adapter does not know of.
		s.failProtocol(fmt.Errorf("%w: mux refused its frames", errProtocol))
		return
	case errors.Is(cause, errProtocol):
		s.failProtocol(cause)
		return
	case cause == io.EOF:
		cause = ErrClosed
	}
	s.stop(code.OK, "", cause)
}

// finish ends everything that runs: first the streams, so that nothing waits
// inside the mux any more, then the mux, then the carrier.
func (s *Session) finish() {
	s.cause = s.stopErr
	close(s.lost)
	s.mu.Lock()
	left := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	for _, st := range left {
		st.end(ending{err: s.lossErr(), lost: true})
	}
	close(s.adapter.freed)
	_ = s.mux.Close()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	_ = s.carrier.CloseWithReason(s.stopCode, s.stopReason)
	s.wg.Wait()
	s.mu.Lock()
	// A user who was just ending a stream of his own takes it off the list later.
	clear(s.streams)
	s.mu.Unlock()
	close(s.ended)
}

// spawn runs f in a goroutine that Run waits for. When the session is over, and
// nothing blocks any more, f runs at once.
func (s *Session) spawn(f func()) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		f()
		return
	}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		f()
	}()
}

// Close ends the session, and with it every stream that is still open, and
// tells the peer why. It returns at once; Done tells when all has ended.
func (s *Session) Close(c code.Code, reason string) {
	var err error
	if c != code.OK {
		err = &ClosedError{Code: c, Reason: reason}
	}
	s.stop(c, reason, err)
}

func (s *Session) stop(c code.Code, reason string, err error) {
	s.stopOnce.Do(func() {
		s.stopCode, s.stopReason, s.stopErr = c, reason, err
		close(s.stopping)
	})
}

// Lost returns a channel that is closed when the session is over: its streams
// have failed or are about to. Run may return later, since the peer is told.
func (s *Session) Lost() <-chan struct{} { return s.lost }

// Done returns a channel that is closed when Run has returned.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err returns why the session is over, nil before that.
func (s *Session) Err() error {
	select {
	case <-s.lost:
		return s.cause
	default:
		return nil
	}
}

// lossErr is what streams of a session that is over fail with. It is called
// when the session has ended or is about to.
func (s *Session) lossErr() error {
	<-s.lost
	if s.cause == nil {
		return &LossError{Cause: errors.New("session closed")}
	}
	return &LossError{Cause: s.cause}
}

// Peer returns whom the carrier's handshake authenticated.
func (s *Session) Peer() channel.Peer { return s.carrier.Peer() }

// Streams returns how many streams are open.
func (s *Session) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Drain tells the peer to open no more streams here.
func (s *Session) Drain(reason string) { s.control.drain(reason) }

// Draining returns a channel that is closed when the peer drains.
func (s *Session) Draining() <-chan struct{} { return s.draining }

// Move asks the peer, who makes the carrier's paths, for another one: the
// present one is about to end.
func (s *Session) Move(reason string) { s.control.move(reason) }

// Moving returns a channel that receives when the peer has asked for another
// path.
func (s *Session) Moving() <-chan struct{} { return s.moving }

// failProtocol ends the session for what the peer did.
func (s *Session) failProtocol(err error) {
	s.stop(code.Protocol, err.Error(), err)
}

var _ net.Conn = (*Stream)(nil)
