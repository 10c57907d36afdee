//go:build !unix

package sock

import (
	"net"
	"sync/atomic"
)

// rawWriter is not available here.
type rawWriter struct{}

func rawWriterOf(net.Conn) *rawWriter { return nil }

func (*rawWriter) write([]byte, *atomic.Uint64) (int, error) {
	panic("unreachable: there is no rawWriter")
}

func (*rawWriter) queued() int { panic("unreachable: there is no rawWriter") }
