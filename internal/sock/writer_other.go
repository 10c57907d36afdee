//go:build !unix

package sock

import "net"

// rawWriter is not available here.
type rawWriter struct{}

func rawWriterOf(net.Conn) *rawWriter { return nil }

func (*rawWriter) write([]byte) (int, error) { panic("unreachable: there is no rawWriter") }
