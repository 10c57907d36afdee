package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Config is what a [Server] is made of. Local is required; everything else
// has a default. Who may do what is denied unless a func allows it; a func's
// error is the reason that the refused caller reads, of a [*DeniedError] only
// what is meant for it.
type Config struct {
	Local *channel.Local

	// Register says who may offer an outlet here; nil denies all.
	Register func(peer channel.Peer) error
	// Connect says who may be joined to that outlet; nil denies all. The zero
	// identifier is for outlets in general: it is asked about when a find waits for its
	// turn, which others do not keep, and when it has come to nothing, to say why.
	Connect func(peer channel.Peer, outlet identity.Identifier) error
	// Extend says who may be carried on to the host:port address, which is
	// canonical as in a hop's URL; nil denies all.
	Extend func(peer channel.Peer, address string) error
	// Offers returns what reports whether an outlet that is registered here has
	// proven now that it may offer the service of that name; it is asked about one
	// outlet after the other and is to be quick. No such func refuses the find, since
	// the relay has nobody to believe that of an outlet. Nil refuses each.
	Offers func() func(outlet channel.Peer, service string) bool

	// Audit is told of each request to register, connect, extend or find that the
	// funcs above have allowed, before anything else is done for it; an error
	// refuses it with [code.AuditFailed] and is what the caller reads. It may
	// take a while. The Trace is told of each one's end with the grant's ID: by
	// Refused, Abandoned, RegistrationEnded, JoinEnded or Found. Nil records nothing.
	Audit func(Grant) error

	// Dial reaches the address of an extend; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// LookupHost resolves the host of an extend; nil means the system's resolver.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	Limits  Limits
	Timing  Timing
	Channel channel.Options
	Trace   *Trace
}

// A Grant is a request that is allowed.
type Grant struct {
	ID      uint64 // the server's, from 1
	Peer    channel.Peer
	Remote  net.Addr
	Request string // register, connect, extend or find
	Target  string // the outlet's identifier or the address, where there is one
	Service string // of find: the service's name
}

// Limits bound what a [Server] takes on. Zero means the default.
type Limits struct {
	// Handshakes is how many handshakes are in flight at most; 256. Beside them one
	// conn of each Serve waits.
	Handshakes int
	// HandshakesPerSecond is how many are begun in a second at most; 500. More
	// than that wait in the listener's backlog.
	HandshakesPerSecond int
	// Conns is how many authenticated conns there are at most; 16,384. A join
	// by connect is two of them, one by extend is one and the conn that the
	// relay dials for it.
	Conns int
	// ConnsPerIdentity is how many of those are one identity's; 4,096.
	ConnsPerIdentity int
	// Registrations is how many there are at most; 16,384.
	Registrations int
	// RegistrationsPerIdentity is how many instances of one outlet may stand
	// side by side; 8.
	RegistrationsPerIdentity int
	// Waiting is how many callers are held for one registration's next spare
	// conn, whoever they are; 1,024, which is what can be joined in the time
	// that they are held.
	Waiting int
	// BytesPerSecond is what each direction of each join carries at most; 0
	// means no limit. A caller's joins do not share it.
	BytesPerSecond int64
}

// Timing are a [Server]'s times. Zero means the default. The defaults are part
// of the protocol; tests shorten them.
type Timing struct {
	Lease       time.Duration // how long a registration lives unrenewed; 30 s
	Ping        time.Duration // how often a parked conn is pinged; 5 s, and it is dead after two
	Going       time.Duration // how long a parked conn may take to answer go; 3 s
	Hold        time.Duration // how long a caller is held for a spare conn, or a find for its turn; 5 s
	Idle        time.Duration // how long a join may move no byte; 60 s
	UserTimeout time.Duration // TCP_USER_TIMEOUT of every leg; 30 s
	Dial        time.Duration // one dial of extend, at most MaxDial; 2.5 s
}

// MaxDial bounds Timing.Dial: together with a look-up it has to end while the
// caller waits for its answer, or the caller would blame this relay and not try
// the next hop's other addresses.
const MaxDial = 4 * time.Second

// writeTime bounds a write of a small message: longer means that the peer does
// not read at all.
const writeTime = 5 * time.Second

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&l.Handshakes, 256},
		{&l.HandshakesPerSecond, 500},
		{&l.Conns, 16384},
		{&l.ConnsPerIdentity, 4096},
		{&l.Registrations, 16384},
		{&l.RegistrationsPerIdentity, 8},
		{&l.Waiting, 1024},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Lease, 30 * time.Second},
		{&t.Ping, 5 * time.Second},
		{&t.Going, 3 * time.Second},
		{&t.Hold, 5 * time.Second},
		{&t.Idle, 60 * time.Second},
		{&t.UserTimeout, 30 * time.Second},
		{&t.Dial, 2500 * time.Millisecond},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// check returns all faults of a config, joined.
func (c Config) check() error {
	var errs []error
	if c.Local == nil {
		errs = append(errs, errors.New("relay: Config.Local is missing"))
	}
	l, t := c.Limits, c.Timing
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Limits.Handshakes", int64(l.Handshakes)},
		{"Limits.HandshakesPerSecond", int64(l.HandshakesPerSecond)},
		{"Limits.Conns", int64(l.Conns)},
		{"Limits.ConnsPerIdentity", int64(l.ConnsPerIdentity)},
		{"Limits.Registrations", int64(l.Registrations)},
		{"Limits.RegistrationsPerIdentity", int64(l.RegistrationsPerIdentity)},
		{"Limits.Waiting", int64(l.Waiting)},
		{"Limits.BytesPerSecond", l.BytesPerSecond},
		{"Timing.Lease", int64(t.Lease)},
		{"Timing.Ping", int64(t.Ping)},
		{"Timing.Going", int64(t.Going)},
		{"Timing.Hold", int64(t.Hold)},
		{"Timing.Idle", int64(t.Idle)},
		{"Timing.UserTimeout", int64(t.UserTimeout)},
		{"Timing.Dial", int64(t.Dial)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("relay: Config.%s is negative", f.name))
		}
	}
	if t.Dial > MaxDial {
		errs = append(errs, fmt.Errorf("relay: Config.Timing.Dial is more than %s", MaxDial))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
	c.Timing = c.Timing.withDefaults()
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.LookupHost == nil {
		c.LookupHost = net.DefaultResolver.LookupHost
	}
	if c.Trace == nil {
		c.Trace = new(Trace)
	}
	c.Trace = c.Trace.filled()
	return c
}
