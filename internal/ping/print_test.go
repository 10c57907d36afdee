package ping

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/culvert-net/culvert/pkg/relay"
)

// Whatever hops, resolvers and relays say, what is printed does nothing to a terminal
// and looks like no other line.
func TestPrinterOnATerminal(t *testing.T) {
	const evil = "\x1b]0;gone\a\r\nroute 2 of 2\u009b2J\u202e"
	var b bytes.Buffer
	p := NewPrinter(&b)
	tell := p.Trace()
	why := &Problem{Error: evil, Code: evil, Remedy: evil}
	w := &Way{Route: evil, Number: 1, Of: 1, Outlet: evil, Problem: why, Pings: &Pings{Sent: 1, LastError: evil}, Changes: []Change{{Lost: evil}}}
	tell.Began(w)
	for _, s := range []Step{
		{At: AtRelay, Host: evil, Kind: string(relay.StepResolve), Addresses: []string{evil, evil}},
		{At: AtRelay, Address: "[fe80::1%" + evil + "]:1", Kind: string(relay.StepConnect)},
		{At: evil, Kind: evil, Request: evil, Identifier: evil, Problem: why},
		{At: AtService, Service: evil, Kind: StepOpen},
	} {
		tell.Stepped(w, s)
	}
	tell.Pinged(w)
	tell.Ended(w)
	if err := p.Summary(&Report{Service: evil, Notes: []string{evil}, Ways: []*Way{w}}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "route 2") {
			t.Error("a text has made a line of its own")
		}
		if line = strings.TrimSuffix(line, "\n"); strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("printed %q", line)
		}
	}
}
