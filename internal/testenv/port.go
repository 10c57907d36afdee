// Package testenv owns what tests have to know of the machine that they run on: ports
// that nobody else takes, and for how long the machine has kept a test from running. It
// is for tests only, and says nothing of the programs under test.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// Ports are taken from below the ranges that systems give outgoing connections and
// listeners without a port (Linux: 32768 to 60999; others: 49152 and above). A port of
// those that is listened at, closed and handed on can be somebody else's when it is used.
const firstPort, lastPort = 20000, 32000

// looked counts the ports that this process has looked at: one that was released comes
// again last, since connections to it may not be forgotten yet.
var looked atomic.Int64

// Port returns a TCP port of the loopback 127.0.0.1 at which nobody listens and which no
// other caller gets, in other processes either, until the test has ended.
func Port(t testing.TB) int {
	t.Helper()
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// Reserve is [Port] for what is no test: the port is the caller's until release is called.
func Reserve() (port int, release func(), err error) {
	const n = lastPort - firstPort
	start := int64(os.Getpid()) * 257 // far from where other processes begin
	for range n {
		port = firstPort + int((start+looked.Add(1))%n)
		if release = reserve(port); release != nil {
			return port, release, nil
		}
	}
	return 0, nil, errors.New("no free port from 20000 to 31999")
}

// reserve takes a port, or returns nil if it is taken. The claim on it is the UDP port of
// the same number, which stands in nobody's way.
func reserve(port int) (release func()) {
	var config net.ListenConfig
	at := fmt.Sprintf("127.0.0.1:%d", port)
	claim, err := config.ListenPacket(context.Background(), "udp", at)
	if err != nil {
		return nil
	}
	ln, err := config.Listen(context.Background(), "tcp", at)
	if err != nil {
		_ = claim.Close()
		return nil
	}
	_ = ln.Close()
	return func() { _ = claim.Close() }
}
