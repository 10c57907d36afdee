// Package target owns the connection from an outlet to what is behind a service: TCP,
// TLS on it, or a unix socket, and what the target is told of who calls (the PROXY
// protocol). It does not decide who may call, carries no bytes and does not log.
package target

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// A Config says what is dialled, and how.
type Config struct {
	Network, Address string // as package net takes them: tcp or unix
	TLS              *TLS   // how TLS is spoken, over TCP; nil: it is not
	ProxyProtocol    int    // the version of the header that is sent first: 1 or 2; 0: none is

	// Stale is told why files that have changed cannot be taken: what they held
	// before goes on counting. nil: nobody is. It must not block.
	Stale func(err error)
}

// A Target is what is behind a service. It may be used by any number of goroutines.
type Target struct {
	cfg   Config
	files *tlsFiles // nil: there is no TLS
}

// New returns a Target. It reads the files that the settings name; an error is a
// *[SettingError].
func New(cfg *Config) (*Target, error) {
	t := &Target{cfg: *cfg}
	if cfg.TLS != nil {
		t.files = &tlsFiles{cfg: *cfg.TLS, host: cfg.Address}
		if err := t.files.load(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// A DialFunc dials, as [net.Dialer.DialContext] does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// past is a deadline that has always expired.
var past = time.Unix(1, 0)

// Dial connects to the target by dial, tells it of the caller first where the
// settings say so, and then speaks TLS with it where they do; ctx bounds all of that.
// Closing what it returns is a reset, until SetLinger says otherwise. An error of TLS
// is a *[TLSError].
func (t *Target) Dial(ctx context.Context, dial DialFunc, from *Caller) (sock.Conn, error) {
	nc, err := dial(ctx, t.cfg.Network, t.cfg.Address)
	if err != nil {
		return nil, err
	}
	c, err := sock.Of(nc)
	if err != nil {
		_ = nc.Close() // nothing was sent on it
		return nil, err
	}
	_ = c.SetLinger(0) // a socket that is over already needs none
	if t.cfg.ProxyProtocol == 0 && t.files == nil {
		return c, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	open, err := t.begin(ctx, c, from)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = sock.ResetClose(c)
		return nil, err
	}
	return open, nil
}

// begin says and does what comes before the caller's own bytes.
func (t *Target) begin(ctx context.Context, c sock.Conn, from *Caller) (sock.Conn, error) {
	if t.cfg.ProxyProtocol != 0 {
		h, err := header(t.cfg.ProxyProtocol, from, c.RemoteAddr())
		if err != nil {
			return nil, err
		}
		if _, err := c.Write(h); err != nil {
			return nil, fmt.Errorf("telling the target who calls: %w", err)
		}
	}
	if t.files == nil {
		return c, nil
	}
	conf, err := t.files.current()
	if err != nil && t.cfg.Stale != nil {
		t.cfg.Stale(err)
	}
	return secure(ctx, c, conf)
}
