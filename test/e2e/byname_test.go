//go:build e2e && linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// openNamed opens a stream and returns it with the name of whom it goes to, "" if it
// did not come as far.
func openNamed(addr string, within time.Duration) (c net.Conn, name string, err error) {
	c, err = net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, "", err
	}
	_ = c.SetDeadline(time.Now().Add(within))
	line, err := bufio.NewReaderSize(io.LimitReader(c, 64), 64).ReadString('\n')
	if err != nil {
		_ = c.Close()
		return nil, "", fmt.Errorf("reading the name: %w", err)
	}
	return c, strings.TrimSpace(line), nil
}

// wantOnly waits until new streams go to all of these and to no other.
func wantOnly(t *testing.T, addr string, within time.Duration, names ...string) {
	t.Helper()
	var last map[string]int
	if !eventually(within, func() bool {
		last = map[string]int{}
		var open []net.Conn
		for range 3 * len(names) { // at once, so that they are spread
			c, name, err := openNamed(addr, 5*time.Second)
			if err != nil {
				last[err.Error()]++
				continue
			}
			open = append(open, c)
			last[name]++
		}
		for _, c := range open {
			_ = c.Close()
		}
		for _, name := range names {
			if last[name] == 0 {
				return false
			}
		}
		return len(last) == len(names)
	}) {
		t.Fatalf("streams go to %v, want all of %v and no other", last, names)
	}
}

// A callers keeps opening short streams, and counts those that fail.
type callers struct {
	stop    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	good   int
	failed []error
}

// callTime is how long a caller waits for what may not come any more.
const callTime = 10 * time.Second

func startCallers(addr string, n int) *callers {
	l := &callers{stop: make(chan struct{})}
	for range n {
		l.running.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				began := time.Now()
				c, name, err := openNamed(addr, callTime)
				if err == nil {
					err = tryExchange(c, "hello", callTime)
					_ = c.Close()
				}
				l.mu.Lock()
				if err == nil {
					l.good++
				} else {
					l.failed = append(l.failed, fmt.Errorf("a stream to %q, begun at %s: %w", name, began.Format(time.StampMilli), err))
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// count returns how many streams have ended as they should.
func (l *callers) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.good
}

func (l *callers) end() error {
	close(l.stop)
	l.running.Wait()
	return errors.Join(l.failed...)
}

// A service by name, through a relay that trusts two authorities and an inlet that
// trusts one of them: streams are spread over all outlets, and all processes of an
// outlet, that prove to offer it. When one is killed, nothing fails but what it had.
// Who is revoked is cut within 5 s, and the others serve. An outlet with the other
// authority's word for it gets nothing.
func TestServiceByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	authority, stranger := w.id("authority"), w.id("stranger")
	w.start("relay", "relay", "", "listen: [\"tcp://"+w.addr("relay")+"\"]\nauthorities: "+list([]string{authority, stranger})+"\n"+
		"register: peer.id in "+list([]string{authority, stranger})+" || peer.attr.role == \"outlet\"\n"+
		"connect: target in "+list([]string{authority, stranger})+" || peer.attr.role == \"inlet\"\n").wantReady()
	a, other := w.authority("authority", "relay"), w.authority("stranger", "relay")
	outlet := func(name, identity string, by *node) *node {
		t.Helper()
		return w.start("outlet", name, identity, "relays: "+list([]string{w.hop("relay")})+"\nservices:\n  - name: orders-db\n    target: tcp://"+serveTCP(t, named(name))+
			"\n    allow: 'true'\n"+by.enrolment(t, name, "role=outlet", "service=orders-db")).wantReady()
	}
	outlet("one", "", a)
	outlet("twin", "one", a) // another process of the same identity
	two := outlet("two", "", a)
	impostor := outlet("impostor", "", other)
	inlet := w.start("inlet", "inlet", "", "services:\n  - listen: tcp://"+w.at("inlet", "orders-db")+"\n    service: orders-db\n    routes: "+
		list([]string{w.hop("relay")})+"\n"+a.enrolment(t, "inlet", "role=inlet")).wantReady()
	addr := w.at("inlet", "orders-db")
	wantOnly(t, addr, patience, "one", "twin", "two")
	inlet.wantLog(t, patience, "replica is left alone for a while", w.id("impostor"), "untrusted_authority")

	const clients = 4
	l := startCallers(addr, clients)
	good := func(n int) {
		t.Helper()
		want := l.count() + n
		if !eventually(patience, func() bool { return l.count() >= want }) {
			t.Fatalf("%d streams in %s, want %d", l.count()+n-want, patience, n)
		}
	}
	good(50)
	two.kill()
	good(200)
	if err := l.end(); len(l.failed) > clients {
		t.Errorf("%d streams failed, and the outlet that was killed had %d at most: %v", len(l.failed), clients, err)
	}
	wantOnly(t, addr, patience, "one", "twin")
	two.restart().wantReady()
	wantOnly(t, addr, patience, "one", "twin", "two")

	var kept []net.Conn
	for range 12 {
		c, name, err := openNamed(addr, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if name == "one" || name == "twin" {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		t.Fatal("no stream to the outlet that is to be revoked")
	}
	if !eventually(patience, func() bool { return inlet.metric("culvert_channel_authority_connected") == 1 }) {
		t.Fatal("the inlet is not connected to the authority")
	}
	a.mustAt("revoke", w.id("one"))
	revoked := time.Now()
	for _, c := range kept {
		wantReset(t, c, time.Until(revoked.Add(cutTime)))
	}
	wantOnly(t, addr, patience, "two")
	if n := impostor.metric("culvert_outlet_streams_total"); n != 0 {
		t.Errorf("the impostor had %v streams", n)
	}
	if n := impostor.metric("culvert_outlet_channels"); n != 0 {
		t.Errorf("the impostor has %v channels", n)
	}
}
