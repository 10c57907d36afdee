package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// An opcode is the first byte of a connection: what the target is to do with
// it.
type opcode byte

const (
	// opEcho sends back what comes.
	opEcho opcode = 'E'
	// opSource sends without end.
	opSource opcode = 'D'
	// opSink reads without end, and every [reportTime] sends how many bytes
	// have come, as a u64 big-endian: what counts is what has arrived.
	opSink opcode = 'U'
)

// reportTime is how often a sink says how much it has got.
const reportTime = 50 * time.Millisecond

// chunk is how much is read or written at once.
const chunk = 128 << 10

// Serve is the target, what all paths lead to: it answers connections until ctx ends or ln fails, closes ln and all
// connections, and returns when nothing of it runs any more: nil when ctx ended
// it.
func Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting: %w", err)
		case err != nil: // too many open files, for a moment
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		running.Go(func() {
			defer nc.Close()
			defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
			answer(nc)
		})
	}
}

// answer serves one connection. What ends it is the client's business.
func answer(nc net.Conn) {
	var op [1]byte
	if _, err := io.ReadFull(nc, op[:]); err != nil {
		return
	}
	switch opcode(op[0]) {
	case opEcho:
		echo(nc)
	case opSource:
		source(nc)
	case opSink:
		sink(nc)
	}
}

// smallEcho is how much an echo reads at once until a read has filled it, so
// that thousands of idle ones hold little.
const smallEcho = 4 << 10

func echo(nc net.Conn) {
	var small [smallEcho]byte
	buf := small[:]
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		if _, err := nc.Write(buf[:n]); err != nil {
			return
		}
	}
}

// zeros is what sources and uploads send. Nothing on the way may compress.
var zeros [chunk]byte

func source(nc net.Conn) {
	for {
		if _, err := nc.Write(zeros[:]); err != nil {
			return
		}
	}
}

func sink(nc net.Conn) {
	buf := make([]byte, chunk)
	var total uint64
	last := time.Now()
	for {
		n, err := nc.Read(buf)
		total += uint64(n)
		if now := time.Now(); now.Sub(last) >= reportTime {
			last = now
			var report [8]byte
			binary.BigEndian.PutUint64(report[:], total)
			if _, err := nc.Write(report[:]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
