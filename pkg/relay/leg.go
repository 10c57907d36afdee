package relay

import (
	"net"
	"sync/atomic"
)

// A leg is a transport conn with what was read from it already.
type leg struct {
	net.Conn
	first []byte
}

func (l *leg) Read(b []byte) (int, error) {
	if len(l.first) > 0 {
		n := copy(b, l.first)
		l.first = l.first[n:]
		return n, nil
	}
	return l.Conn.Read(b)
}

// CloseWrite ends the leg's sending direction, or all of a leg that has no such
// thing.
func (l *leg) CloseWrite() error {
	if cw, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return l.Conn.Close()
}

// NetConn returns what the leg stands on.
func (l *leg) NetConn() net.Conn { return l.Conn }

// A countedLeg is a leg of which what is written to it is counted.
type countedLeg struct {
	leg
	written *atomic.Int64
}

func (l *countedLeg) Write(b []byte) (int, error) {
	n, err := l.leg.Write(b)
	l.written.Add(int64(n))
	return n, err
}
