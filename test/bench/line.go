//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/bench/rig"
	"github.com/culvert-net/culvert/internal/line"
)

// The line: what it carries a second, and its round trips. Its buffer is twice
// the bandwidth-delay product.
const lineRate = 200_000_000

var lineTimes = []time.Duration{20 * time.Millisecond, 100 * time.Millisecond}

func lineName(rtt time.Duration) string { return fmt.Sprintf("line-%dms", rtt.Milliseconds()) }

// pathLine is plain TCP over the line.
const pathLine = "plain"

// lineCandidates are few: what is compared is how well the line is used.
func lineCandidates(rtt time.Duration) []rig.Candidate {
	through := func(ch *rig.Chain) func(string) string {
		return func(addr string) string { return startLine(ch, rtt, addr) }
	}
	return []rig.Candidate{
		{Name: pathLine, Note: "plain TCP over the line", Start: func(ch *rig.Chain) string { return startLine(ch, rtt, ch.Target()) }},
		{Name: pathHAProxy, Note: "HAProxy to HAProxy, as above, over the line", Start: func(ch *rig.Chain) string { return haproxyPair(ch, through(ch)) }},
		{Name: pathDirectC, Note: "inlet to outlet over the line", Start: func(ch *rig.Chain) string { return ch.Culvert(0, through(ch)) }},
		{Name: pathRelay1, Note: "inlet over the line to a relay, outlet", Start: func(ch *rig.Chain) string { return ch.Culvert(1, through(ch)) }},
	}
}

// startLine starts a line before an address and returns where it begins. It runs in
// this process.
func startLine(ch *rig.Chain, rtt time.Duration, target string) string {
	ln, err := new(net.ListenConfig).Listen(ch.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		ch.Fail(err)
		return ""
	}
	l := line.New(line.Config{Rate: lineRate, Delay: rtt / 2, Buffer: int(2 * lineRate / 8 * rtt.Seconds())})
	served := make(chan struct{})
	go func() {
		defer close(served)
		var d net.Dialer
		_ = l.Serve(context.Background(), ln, func(ctx context.Context) (net.Conn, error) { // until closed
			return d.DialContext(ctx, "tcp", target)
		})
	}()
	ch.OnStop(func() {
		_ = ln.Close()
		l.Close()
		<-served
	})
	return ln.Addr().String()
}
