package app

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
)

// idleCost is what a quiet stream may hold, heap and stacks, in inlet and outlet
// together, with the test's own client and target. About half of that is used, and
// what the runtime keeps differs from run to run; one buffer that is kept is ten
// times as much.
const idleCost = 36 << 10

// TestIdleStreams has connections move data and measures what they hold while they
// are quiet, and that they hold nothing when they have ended.
func TestIdleStreams(t *testing.T) {
	sys, _ := startDirect(t, nil, nil)
	const n = 200
	start := memory()
	sys.closeAll(t, sys.idleClients(t, n)) // what the processes keep for their peak is there from now on
	var before int
	eventually(t, "memory has come back", func() bool {
		before = memory()
		return before-start < 8<<20
	})
	goroutines := runtime.NumGoroutine()
	clients := sys.idleClients(t, n)
	// One for each of the three sockets that are read: inlet, outlet, target.
	eventually(t, "a quiet stream has one goroutine at either end", func() bool { return runtime.NumGoroutine() <= goroutines+3*n })
	if each := (memory() - before) / n; each > idleCost {
		t.Errorf("a quiet stream holds %d bytes, want %d at most", each, idleCost)
	} else {
		t.Logf("a quiet stream holds %d bytes", each)
	}
	sys.closeAll(t, clients)
	eventually(t, "their goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "their memory has come back", func() bool { return memory()-before < n*idleCost/8 })
}

// idleClients opens n connections, moves more than the first window both ways on
// each, and leaves them open.
func (sys *system) idleClients(t *testing.T, n int) (clients []net.Conn) {
	t.Helper()
	data := make([]byte, 300<<10)
	got := make([]byte, len(data))
	for range n {
		nc, err := net.Dial("tcp", sys.inlet.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, nc)
		var writing sync.WaitGroup
		writing.Go(func() { _, _ = nc.Write(data) })
		if _, err := io.ReadFull(nc, got); err != nil {
			t.Fatal(err)
		}
		writing.Wait()
	}
	return clients
}

func (sys *system) closeAll(t *testing.T, clients []net.Conn) {
	t.Helper()
	for _, nc := range clients {
		_ = nc.Close()
	}
	eventually(t, "all streams have ended", func() bool { return sys.inlet.countStreams()+sys.outlet.countStreams() == 0 })
}

// memory returns what the heap and the stacks hold after the process has tidied
// up.
func memory() int {
	returnMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
