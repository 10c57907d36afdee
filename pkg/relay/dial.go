package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A Dialer makes paths along routes, and asks the relays at their ends, as Local.
// Everything but Local has a
// default. It is safe for concurrent use and keeps nothing between calls.
type Dialer struct {
	Local *channel.Local

	// Dial reaches the first hop; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// LookupHost resolves the first hop's host; nil means the system's resolver.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	DialTimeout      time.Duration // for one address; 0 means 2.5 s
	HandshakeTimeout time.Duration // with one hop; 0 means 5 s
	AnswerTimeout    time.Duration // of one hop, which may hold a caller; 0 means 10 s
	UserTimeout      time.Duration // TCP_USER_TIMEOUT of the first leg; 0 means 30 s

	Channel channel.Options

	// Trace is told of each step of a call when that has ended, failed ones too,
	// by the goroutine of the call; it must not block. Nil means nobody is.
	Trace func(Step)
}

// maxAttempts bounds how many combinations of addresses one call tries.
const maxAttempts = 64

// Path makes a path along r to the outlet: to the instance that is given, or
// else to any that the last relay chooses. The conn that it returns carries raw
// bytes, is ready for [channel.Initiate], and is the caller's. When the last
// hop's identifier is the outlet's own, that hop is the outlet itself, and the
// path ends there: at any of its addresses, or, for an instance, at the one of
// that number, in the outlet's order, since whoever is there cannot be asked for
// somebody else. The error past the last one is [channel.ErrNoAddress], as it is
// past 0 where the last hop is a relay.
//
// Every hop is tried at all of its host's addresses, in an order of the
// outlet's own, before it has failed; an error is a [*PathError], or ctx's. The
// Dialer's times bound each step; ctx is to bound them all.
func (d *Dialer) Path(ctx context.Context, r route.Route, outlet identity.Identifier, instance *channel.Instance, address int) (net.Conn, error) {
	if len(r) == 0 {
		return nil, errors.New("route is empty")
	}
	w := walk{d: d.withDefaults(), route: r, order: outlet, fixed: -1}
	w.last = func(ctx context.Context, d *Dialer, nc net.Conn, hop identity.Identifier) (net.Conn, error) {
		raw, _, err := d.through(ctx, nc, hop, connectRequest(outlet, instance))
		return raw, err
	}
	switch direct := r[len(r)-1].Identifier == outlet; {
	case direct && instance != nil:
		w.last, w.fixed = nil, address
	case direct:
		w.last = nil
	case address > 0:
		return nil, channel.ErrNoAddress
	}
	nc, _, err := w.run(ctx)
	if errors.Is(err, errNoAddress) {
		return nil, channel.ErrNoAddress
	}
	return nc, err
}

// errNoAddress says that a hop's host has no address of that index.
var errNoAddress = errors.New("no address of that index")

// reach makes a path to one address of r's last hop, the one that index chooses
// in order, and returns it with that address. Past the last address the error
// is errNoAddress.
func (d *Dialer) reach(ctx context.Context, r route.Route, order [32]byte, index int) (net.Conn, string, error) {
	w := walk{d: d.withDefaults(), route: r, order: order, fixed: index}
	return w.run(ctx)
}

func (d *Dialer) withDefaults() *Dialer {
	e := *d
	if e.Dial == nil {
		e.Dial = new(net.Dialer).DialContext
	}
	if e.LookupHost == nil {
		e.LookupHost = net.DefaultResolver.LookupHost
	}
	for _, t := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&e.DialTimeout, 2500 * time.Millisecond},
		{&e.HandshakeTimeout, 5 * time.Second},
		{&e.AnswerTimeout, 10 * time.Second},
		{&e.UserTimeout, 30 * time.Second},
	} {
		if *t.field <= 0 {
			*t.field = t.value
		}
	}
	return &e
}

// admits returns nil where every hop of r may be used, as far as the hops' identifiers
// tell ([channel.Local.Admit]), else a [*PathError].
func (d *Dialer) admits(r route.Route) error {
	for i, h := range r {
		if err := d.Local.Admit(channel.Peer{Identifier: h.Identifier}); err != nil {
			return &PathError{Failures: []*HopError{{Hop: i + 1, Of: len(r), URL: h, Err: err}}}
		}
	}
	return nil
}

// dial connects to one address.
func (d *Dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.DialTimeout)
	defer cancel()
	nc, err := d.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = sock.SetUserTimeout(nc, d.UserTimeout)
	return nc, nil
}

// ask does the handshake with the hop at nc's far end and makes one request of
// it. The conn that it returns has had its answer, m. An error ends nc.
func (d *Dialer) ask(ctx context.Context, nc net.Conn, hop identity.Identifier, r request) (conn *channel.Conn, m message, err error) {
	conn, err = d.hear(ctx, nc, hop, r, func(c *channel.Conn) (err error) {
		m, err = readOK(c)
		return err
	})
	return conn, m, err
}

// readOK reads the message that grants a request.
func readOK(r io.Reader) (message, error) {
	m, err := readMessage(r)
	if err == nil && m.Kind != msgOK {
		err = fmt.Errorf("%w: of kind %d as an answer", errMessage, m.Kind)
	}
	return m, err
}

// hear is ask for an answer that read reads, all of it within the time for an
// answer.
func (d *Dialer) hear(ctx context.Context, nc net.Conn, hop identity.Identifier, r request, read func(*channel.Conn) error) (*channel.Conn, error) {
	b, err := r.encode()
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	opt := d.Channel
	opt.Timeout = d.HandshakeTimeout
	began := time.Now()
	conn, err := channel.Initiate(ctx, nc, d.Local, hop, channel.PurposeHop, b, opt)
	d.stepped(Step{Kind: StepHandshake}, began, err)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	err = d.await(ctx, nc, conn, r.Kind, read)
	d.stepped(Step{Kind: StepAnswer, Request: r.Kind.String()}, began, err)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// await reads the answer to a request on conn, which stands on nc. An error ends
// both.
func (d *Dialer) await(ctx context.Context, nc net.Conn, conn *channel.Conn, kind requestKind, read func(*channel.Conn) error) error {
	_ = conn.SetReadDeadline(time.Now().Add(d.AnswerTimeout))
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = conn.SetReadDeadline(past)
	})
	err := read(conn)
	if !stop() {
		<-cut // or it might cut what the conn is used for next
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	switch {
	case err == nil:
		_ = conn.SetReadDeadline(time.Time{})
		return nil
	case refusedBy(err) != nil:
		_ = conn.Close()
		return &refusalError{what: "relay refuses to " + kind.String(), refused: refusedBy(err)}
	}
	drop(nc, conn)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("waiting for the answer to %s: %w", kind, err)
}

// through makes a request after which the conn is raw. An outlet that speaks
// first may have done so already.
func (d *Dialer) through(ctx context.Context, nc net.Conn, hop identity.Identifier, r request) (net.Conn, message, error) {
	conn, m, err := d.ask(ctx, nc, hop, r)
	if err != nil {
		return nil, m, err
	}
	raw, early, err := conn.Detach()
	if err != nil {
		return nil, m, err
	}
	if len(early) > 0 {
		return &leg{Conn: raw, first: early}, m, nil
	}
	return raw, m, nil
}

// isNoAddress reports whether err is a relay's word that the host it was to
// extend to has no more addresses.
func isNoAddress(err error) bool {
	r := refusedBy(err)
	return r != nil && r.Code == code.NoAddress
}

func isUnreachable(err error) bool {
	r := refusedBy(err)
	return r != nil && r.Code == code.Unreachable
}
