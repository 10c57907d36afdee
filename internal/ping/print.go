package ping

import (
	"fmt"
	"io"
	"strings"

	"github.com/culvert-net/culvert/internal/watch"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// Columns of what people read, in characters; a line has 80 at most, but for names
// and addresses that are longer.
const (
	labelWidth   = 9
	addressWidth = 30
	whatWidth    = 26
	textWidth    = 80 - 2 - labelWidth
)

// A Printer writes what a [Pinger] finds for people, as it does.
type Printer struct {
	w     io.Writer
	err   error  // of the first write that failed
	route string // which was printed last
	where string // whose step was
}

// NewPrinter returns what writes to w.
func NewPrinter(w io.Writer) *Printer { return &Printer{w: w} }

// Trace returns what a Pinger is to tell.
func (p *Printer) Trace() Trace {
	return Trace{Began: p.began, Stepped: p.stepped, Pinged: p.pinged, Ended: p.ended}
}

// Summary writes what a report says as a whole, and returns why something could not be
// written.
func (p *Printer) Summary(r *Report) error {
	works, ways := 0, 0
	for _, w := range r.Ways {
		if w.Works {
			works++
		}
		if w.Outlet != "" || w.Problem != nil {
			ways++
		}
	}
	verb := "ways work"
	switch {
	case ways == 1:
		verb = "way works"
	case works == 1:
		verb = "ways works"
	}
	interrupted := ""
	if r.Interrupted {
		interrupted = " (interrupted)"
	}
	p.printf("\n%s: %d of %d %s%s\n", code.Printable(r.Service), works, ways, verb, interrupted)
	for _, n := range r.Notes {
		p.text("note", n)
	}
	return p.err
}

// printf prints a line. Texts, which others may have made a part of, do nothing to a
// terminal, and are no lines of their own.
func (p *Printer) printf(format string, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = code.Printable(text)
		}
	}
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = err
	}
}

func (p *Printer) began(w *Way) {
	if p.route != w.Route {
		p.printf("route %d of %d: %s\n", w.Number, w.Of, shortRoute(w.Route))
	}
	p.route, p.where = w.Route, ""
}

// shortRoute is a route with the beginnings of its identifiers.
func shortRoute(text string) string {
	r, err := route.Parse(text)
	if err != nil {
		return code.Printable(text)
	}
	hops := make([]string, len(r))
	for i, h := range r {
		hops[i] = h.Address() + "/" + watch.Short(watch.Text(h.Identifier.String()))
	}
	return strings.Join(hops, ", ")
}

func (p *Printer) stepped(_ *Way, s Step) {
	where := s.Address
	switch {
	case s.Kind == string(relay.StepResolve) && s.Problem == nil && len(s.Addresses) == 1 && s.Addresses[0] == s.Host:
		return // an address needs no resolver
	case s.Service != "":
		where = code.Printable(s.Service)
	case where == "" && s.Host != "":
		where = s.Host
	case where == "":
		where = watch.Short(watch.Text(s.Identifier))
	}
	at := s.At
	if p.where == at+where {
		at, where = "", "" // as in the line above
	} else {
		p.where = at + where
	}
	p.printf("  %-*s%-*s %-*s %9s\n", labelWidth, at, addressWidth, where, whatWidth, what(s), span(s.Seconds))
	if s.Problem != nil {
		p.problem(s.Problem)
	}
}

// what says what a step has come to.
func what(s Step) string {
	failed := s.Problem != nil
	words := map[string][2]string{ // when it has worked, and when not
		string(relay.StepResolve):   {watch.Count(len(s.Addresses), "address", "addresses"), "no address"},
		string(relay.StepConnect):   {"connected", "no connection"},
		string(relay.StepHandshake): {"proved its identity", "handshake failed"},
		StepChannel:                 {"accepted a channel", "accepted no channel"},
		StepOpen:                    {"opened", "not opened"},
		"to extend":                 {"connected to the next hop", "no way to the next hop"},
		"to connect":                {"joined to the outlet", "not joined to the outlet"},
		"to find":                   {"answered who offers it", "does not say who offers it"},
	}
	key := s.Kind
	if s.Request != "" {
		key = "to " + s.Request
	}
	w, ok := words[key]
	switch {
	case !ok:
		return code.Printable(key)
	case failed:
		return w[1]
	}
	return w[0]
}

func (p *Printer) problem(why *Problem) {
	p.text("", why.Error)
	if why.Remedy != "" {
		p.text("", "→ "+why.Remedy)
	}
}

func (p *Printer) ended(w *Way) {
	if w.Outlet == "" && w.Problem == nil {
		p.text("", "it lists "+watch.Count(w.Found, "outlet", "outlets"))
		return
	}
	for _, c := range w.Changes {
		switch {
		case c.Lost != "":
			p.text("", "the path was lost: "+code.Printable(c.Lost))
		default:
			p.text("", fmt.Sprintf("another path took its place after %s", span(c.Down)))
		}
	}
	if w.Problem != nil && !w.failed() {
		p.problem(w.Problem)
	}
}

func (p *Printer) pinged(w *Way) {
	s := w.Pings
	line := fmt.Sprintf("%d of %d PINGs answered", s.Answered, s.Sent)
	if s.Answered > 0 {
		line += fmt.Sprintf(": min %s, median %s, max %s", span(s.Min), span(s.Median), span(s.Max))
	}
	p.text("", line)
	if s.LastError != "" {
		p.text("", "the last without an answer: "+code.Printable(s.LastError))
	}
}

// text writes text behind a label, in lines that are broken between words.
func (p *Printer) text(label, text string) {
	for _, line := range watch.Wrap(text, textWidth) {
		p.printf("  %-*s%s\n", labelWidth, label, line)
		label = ""
	}
}

// span prints a time in seconds.
func span(seconds float64) string {
	switch {
	case seconds >= 10:
		return fmt.Sprintf("%.1f s", seconds)
	case seconds >= 1:
		return fmt.Sprintf("%.2f s", seconds)
	case seconds >= 0.01:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.2f ms", seconds*1e3)
}
