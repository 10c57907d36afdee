package obs

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
)

// A secureListener's conns speak TLS where the client begins with that, and what
// it speaks otherwise where not: one address is for people with curl, and for
// commands that have to know who answers.
type secureListener struct {
	net.Listener
	cfg *tls.Config
}

// Accept returns the next conn. It reads nothing from it.
func (l *secureListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &secureConn{Conn: nc, cfg: l.cfg}, nil
}

// handshakeRecord is the first byte of a conn that begins with a TLS handshake (RFC
// 8446, section 5.1: ContentType handshake), and of no HTTP request.
const handshakeRecord = 22

// A secureConn is one that is secured when its first byte says so. One goroutine
// reads at a time, as everywhere in net/http, and nothing is written before
// something was read.
type secureConn struct {
	net.Conn
	cfg     *tls.Config
	begun   bool
	secured atomic.Pointer[tls.Conn] // nil: it is not, or not yet
}

// Read is bounded, with the handshake in it, by the conn's read deadline.
func (c *secureConn) Read(b []byte) (int, error) {
	if !c.begun && len(b) > 0 {
		n, err := c.Conn.Read(b[:1])
		if n == 0 {
			return 0, err
		}
		c.begun = true
		if b[0] != handshakeRecord {
			return n, err
		}
		c.secured.Store(tls.Server(&begunConn{c.Conn, true}, c.cfg))
	}
	if s := c.secured.Load(); s != nil {
		return s.Read(b)
	}
	return c.Conn.Read(b)
}

// Write writes as what was read.
func (c *secureConn) Write(b []byte) (int, error) {
	if s := c.secured.Load(); s != nil {
		return s.Write(b)
	}
	return c.Conn.Write(b)
}

// Close says that it is no loss, where that can be said.
func (c *secureConn) Close() error {
	if s := c.secured.Load(); s != nil {
		return s.Close()
	}
	return c.Conn.Close()
}

// A begunConn is one of which the handshake record's first byte has been read.
type begunConn struct {
	net.Conn
	held bool
}

func (c *begunConn) Read(b []byte) (int, error) {
	if !c.held || len(b) == 0 {
		return c.Conn.Read(b)
	}
	c.held = false
	b[0] = handshakeRecord
	return 1, nil
}

// connKey is the key of a request's conn in its context.
type connKey struct{}

// withConn is an [http.Server]'s ConnContext.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// showSecured sets a request's TLS, which net/http sets only for conns that it
// knows to be secured.
func showSecured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*secureConn); ok {
			if s := c.secured.Load(); s != nil {
				state := s.ConnectionState()
				r = r.WithContext(r.Context()) // a copy
				r.TLS = &state
			}
		}
		next.ServeHTTP(w, r)
	})
}
