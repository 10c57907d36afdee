//go:build !unix

package sock

import "net"

type rawReader struct{}

func rawReaderOf(net.Conn) *rawReader { return nil }

func (*rawReader) await() error { panic("sock: no raw reads on this system") }

func (*rawReader) read(func() []byte, func([]byte)) ([]byte, int, error) {
	panic("sock: no raw reads on this system")
}
