package relay

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// An AgentConfig is what an [Agent] is made of. Dialer, Route and Handle are
// required.
type AgentConfig struct {
	// Dialer reaches the relays, as the outlet.
	Dialer *Dialer
	// Route leads to the relay to register at, its last hop.
	Route route.Route
	// Handle takes a path that a caller has made to this outlet by way of the
	// relay at address: raw bytes, ready for [channel.Respond]. It owns nc. It
	// runs on a goroutine of its own, with Run's ctx, and Run waits for it.
	Handle func(ctx context.Context, nc net.Conn, address string)

	// Refresh is how often the last hop's addresses are looked up; 0 means 10 s.
	Refresh time.Duration
	// MaxSpares bounds the conns that are parked at one address, whatever the
	// relay asks for; 0 means 64.
	MaxSpares int
	// MaxBackoff is the longest pause between attempts, before jitter; 0 means
	// 1 s. Streams wait for the next one.
	MaxBackoff time.Duration

	Trace *AgentTrace
}

// An AgentTrace is told what an [Agent] does. Every func may be nil. They are
// called from the agent's goroutines, several at a time, and must not block.
// Addresses are ip:port.
type AgentTrace struct {
	// LookupFailed says that the last hop's addresses could not be found; the
	// old ones stay.
	LookupFailed func(err error)
	Registered   func(address string, relay channel.Peer)
	// Lost says that a registration, or an attempt at one, ended.
	Lost func(address string, err error)
	// Draining says that the relay at address is going away.
	Draining func(address string)
	// ParkFailed says that a conn could not be parked, or died there.
	ParkFailed func(address string, err error)
	// Joined says that a caller's path has come in by address.
	Joined func(address string)
}

func (t AgentTrace) filled() *AgentTrace {
	if t.LookupFailed == nil {
		t.LookupFailed = func(error) {}
	}
	if t.Registered == nil {
		t.Registered = func(string, channel.Peer) {}
	}
	if t.Lost == nil {
		t.Lost = func(string, error) {}
	}
	if t.Draining == nil {
		t.Draining = func(string) {}
	}
	if t.ParkFailed == nil {
		t.ParkFailed = func(string, error) {}
	}
	if t.Joined == nil {
		t.Joined = func(string) {}
	}
	return &t
}

// An AddressStatus is what an [Agent] has at one address of its relay.
type AddressStatus struct {
	Address    string // ip:port, or the hop's host:port when it has none
	Registered bool
	Since      time.Time // when Registered changed last
	Draining   bool      // the relay is going away
	Spares     int       // conns parked there
	// SameAs is another address that leads to the same relay process, where
	// the outlet is registered already: one registration is all that it needs.
	SameAs string
	Err    error // why it is not registered; nil before the first attempt has failed
}

// An Agent keeps an outlet registered at every address of a relay's host, and
// parks conns there for callers. It never gives up.
type Agent struct {
	cfg    AgentConfig
	dialer *Dialer // with its defaults
	find   finder

	draining chan struct{} // closed by Drain
	drain    sync.Once
	handlers sync.WaitGroup

	mu        sync.Mutex
	renewing  chan struct{}       // closed, and made anew, by Renew
	stations  map[string]*station // by address
	lookupErr error
	since     time.Time
}

// A station is one address of the relay. Its fields are guarded by Agent.mu.
type station struct {
	address  string
	listed   bool // the last look-up has named it
	status   AddressStatus
	instance channel.Instance // of the relay, while registered there
}

// held is how long a registration has to hold to count as a success. A relay
// that is restarted again and again is come back to each time at once: streams
// wait for that.
const held = 100 * time.Millisecond

// NewAgent checks cfg and returns an Agent that does nothing yet.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	var errs []error
	if cfg.Dialer == nil || cfg.Dialer.Local == nil {
		errs = append(errs, errors.New("relay: AgentConfig.Dialer or its Local is missing"))
	}
	if len(cfg.Route) == 0 {
		errs = append(errs, errors.New("relay: AgentConfig.Route is empty"))
	}
	if cfg.Handle == nil {
		errs = append(errs, errors.New("relay: AgentConfig.Handle is missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.Refresh <= 0 {
		cfg.Refresh = 10 * time.Second
	}
	if cfg.MaxSpares <= 0 {
		cfg.MaxSpares = 64
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = time.Second
	}
	if cfg.Trace == nil {
		cfg.Trace = new(AgentTrace)
	}
	cfg.Trace = cfg.Trace.filled()
	a := &Agent{
		cfg: cfg, dialer: cfg.Dialer.withDefaults(), draining: make(chan struct{}), renewing: make(chan struct{}),
		stations: make(map[string]*station), since: time.Now(),
	}
	a.find = newFinder(a.dialer, cfg.Route)
	return a, nil
}

// Drain tells all relays that this outlet is going away: they send callers who
// want any instance elsewhere, and those who want this one still here. It
// cannot be undone and does not end Run.
func (a *Agent) Drain() { a.drain.Do(func() { close(a.draining) }) }

// Renew makes another registration, in the place of each that there is and while
// that one holds: what handshakes show has changed, such as the credentials. It
// returns at once, and is tried until it has worked. Where a relay of the route is not
// admitted any more ([channel.Local.Admit]) the registration is left instead.
func (a *Agent) Renew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.renewing)
	a.renewing = make(chan struct{})
}

// Status returns what the agent has at each address, in the addresses' order.
// While none is known there is one entry, for the last hop itself.
func (a *Agent) Status() []AddressStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []AddressStatus
	for _, st := range a.stations {
		all = append(all, st.status)
	}
	if len(all) == 0 {
		hop := a.cfg.Route[len(a.cfg.Route)-1]
		return []AddressStatus{{Address: hop.Address(), Since: a.since, Err: a.lookupErr}}
	}
	slices.SortFunc(all, func(x, y AddressStatus) int { return cmp.Compare(x.Address, y.Address) })
	return all
}

// Run keeps the outlet registered until ctx ends. Then it deregisters, closes
// what is parked with [code.Shutdown], and returns nil when nothing that it
// started runs any more, the handlers included.
func (a *Agent) Run(ctx context.Context) error {
	var stations sync.WaitGroup
	retry := a.newBackoff()
	for {
		found, err := a.find.addresses(ctx)
		if ctx.Err() != nil {
			break
		}
		for _, st := range a.update(found, err) {
			stations.Go(func() { a.serve(ctx, st) })
		}
		pause := a.cfg.Refresh
		if err != nil {
			a.cfg.Trace.LookupFailed(err)
			pause = min(pause, retry.NextBackOff())
		} else {
			retry.Reset()
		}
		if !wait.Sleep(ctx, pause) {
			break
		}
	}
	stations.Wait()
	a.handlers.Wait()
	return nil
}

// update takes a look-up's result over and returns the stations that are new.
func (a *Agent) update(found []string, err error) []*station {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lookupErr = err
	if err != nil {
		return nil // better old addresses than none
	}
	for _, st := range a.stations {
		st.listed = false
	}
	var fresh []*station
	for _, address := range found {
		st := a.stations[address]
		if st == nil && len(a.stations) < 2*maxAddresses {
			st = &station{address: address, status: AddressStatus{Address: address, Since: time.Now()}}
			a.stations[address] = st
			fresh = append(fresh, st)
		}
		if st != nil {
			st.listed = true
		}
	}
	return fresh
}

// serve keeps the outlet registered at one address. A registration that works
// is kept even when the address is listed no more; after its end it is not made
// again.
func (a *Agent) serve(ctx context.Context, st *station) {
	retry := a.newBackoff()
	for ctx.Err() == nil {
		started := time.Now()
		err := a.session(ctx, st)
		if ctx.Err() != nil {
			break
		}
		a.cfg.Trace.Lost(st.address, err)
		if time.Since(started) > held {
			retry.Reset()
		}
		if !wait.Sleep(ctx, retry.NextBackOff()) {
			break
		}
		// Two addresses can be one relay, which replaces the one registration
		// by the other: the one that was replaced stays behind, or they would
		// replace each other for ever.
		var closed *channel.CloseError
		if errors.As(err, &closed) && closed.Code == code.Replaced {
			a.standBy(ctx, st)
		}
		if a.forget(st) {
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.stations, st.address)
}

// standBy waits while the relay of st is registered at from another address.
func (a *Agent) standBy(ctx context.Context, st *station) {
	for ctx.Err() == nil && a.elsewhere(st) {
		wait.Sleep(ctx, a.cfg.Refresh)
	}
}

// elsewhere reports whether the relay process at which st was registered last
// has this outlet's registration from another address now.
func (a *Agent) elsewhere(st *station) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	st.status.SameAs = ""
	for _, o := range a.stations {
		if o != st && st.listed && o.status.Registered && o.instance == st.instance {
			st.status.SameAs, st.status.Err = o.address, nil
			return true
		}
	}
	return false
}

// forget drops a station that is listed no more, and reports whether it did.
func (a *Agent) forget(st *station) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !st.listed {
		delete(a.stations, st.address)
	}
	return !st.listed
}

// newBackoff returns the pauses between attempts: the first within 50 ms to
// 150 ms, then doubled, with jitter, up to the bound.
func (a *Agent) newBackoff() *backoff.ExponentialBackOff {
	b := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: a.cfg.MaxBackoff,
	}
	b.Reset()
	return b
}

// set changes a station's status.
func (a *Agent) set(st *station, change func(*AddressStatus)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&st.status)
}
