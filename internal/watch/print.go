package watch

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Options say what of a status is printed, and how.
type Options struct {
	Width   int      // columns; 0: 80
	Section string   // one of [Sections]; "": all that the role has
	Streams int      // how many of them, and of joins, are printed
	Address string   // where the process was asked
	only    []string // of Section, or all
}

// minWidth is the narrowest terminal that lines are broken for, in columns.
const minWidth = 40

// Sections returns the names of what can be printed, in order.
func Sections() []string {
	return []string{"process", "credential", "services", "channels", "routes", "registrations", "streams", "joins", "refusals"}
}

// Print writes a status for people. What the process does not have is left out, where
// all of it is printed.
func Print(w io.Writer, s *Status, ready *Readiness, opt Options) error {
	if opt.Width <= 0 {
		opt.Width = 80
	}
	opt.Width = max(opt.Width, minWidth)
	opt.only = Sections()
	if opt.Section != "" {
		opt.only = []string{opt.Section}
	}
	p := &printer{w: w, s: s, opt: opt}
	for _, f := range []struct {
		name  string
		print func()
	}{
		{"process", func() { p.process(ready) }},
		{"credential", p.credential},
		{"services", p.services},
		{"channels", p.channels},
		{"routes", p.routes},
		{"registrations", p.registrations},
		{"streams", p.streams},
		{"joins", p.joins},
		{"refusals", p.refusals},
	} {
		// Channels have their routes below them, where all is printed.
		if slices.Contains(opt.only, f.name) && (opt.Section != "" || f.name != "routes") {
			f.print()
		}
	}
	return p.err
}

// A printer writes one status.
type printer struct {
	w   io.Writer
	err error // the first of writing
	s   *Status
	opt Options
}

func (p *printer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = err
	}
}

// title begins a section. Without entries it is printed only where it was asked for.
func (p *printer) title(name string, entries int) bool {
	switch {
	case p.opt.Section != "" && entries == 0:
		p.printf("no %s\n", name)
	case entries == 0:
	case p.opt.Section == "":
		p.printf("\n%s\n", Bold.Paint(strings.ToUpper(name)))
	}
	return entries > 0
}

// line writes text at an indent, broken where it is too long; what is broken off goes
// further in.
func (p *printer) line(indent int, style Style, text string) {
	for _, l := range Wrap(text, p.opt.Width-indent) {
		p.printf("%s%s\n", strings.Repeat(" ", indent), style.Paint(strings.TrimRight(l, " ")))
	}
}

// field writes a name and what stands behind it.
func (p *printer) field(indent int, name string, style Style, text string) {
	if text == "" {
		return
	}
	const width = 12
	for i, l := range Wrap(text, p.opt.Width-indent-width) {
		if i > 0 {
			name = ""
		}
		p.printf("%s%s%s\n", strings.Repeat(" ", indent), Dim.Paint(Pad(name, width, false)), style.Paint(strings.TrimRight(l, " ")))
	}
}

// joined returns the parts that are there, with commas.
func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// unless returns text, or nothing where the fact holds.
func unless(fact bool, text string) string {
	if fact {
		return ""
	}
	return text
}

func (p *printer) process(ready *Readiness) {
	s := p.s
	state, style := "ready", Good
	if !ready.Ready {
		state, style = "not ready", Bad
	}
	p.printf("%s%s  %s%s\n", Bold.Paint(string(s.Role)), unless(s.Version == "", " "+string(s.Version)), style.Paint(state),
		unless(s.Started.IsZero(), "  up "+Age(s.Started, s.Now)))
	for _, c := range ready.Checks {
		if !c.Ready {
			p.line(2, Bad, fmt.Sprintf("%s: %s", c.Name, c.Reason))
		}
	}
	p.field(2, "identifier", Plain, string(s.Identifier))
	p.field(2, "instance", Plain, string(s.Instance))
	p.field(2, "asked at", Plain, p.opt.Address)
	p.field(2, "since", Plain, unless(s.Started.IsZero(), s.Started.Local().Format(time.DateTime)))
	for _, l := range s.Listen {
		p.field(2, "listens at", Plain, string(l))
	}
	if s.Draining {
		p.field(2, "draining", Warn, "takes nobody new")
	}
	t := s.Totals
	switch s.Role {
	case Relay:
		p.field(2, "carries", Plain, joined(Count(t.JoinsActive, "join", "joins"), unless(t.JoinsOpened == 0, fmt.Sprintf("%d since the start", t.JoinsOpened)),
			traffic(t.ToTarget, t.ToCaller, "to targets", "to callers"), unless(s.Connections == 0, Count(s.Connections, "connection", "connections"))))
	case Inlet, Outlet:
		p.field(2, "carries", Plain, joined(Count(t.StreamsActive, "stream", "streams"), unless(t.StreamsOpened == 0, fmt.Sprintf("%d since the start", t.StreamsOpened)),
			traffic(t.ToService, t.ToClient, "to services", "back")))
	}
}

// traffic says how many bytes have gone each way; nothing where there were none.
func traffic(there, back int64, to, from string) string {
	return unless(there == 0 && back == 0, fmt.Sprintf("%s %s, %s %s", Bytes(there), to, Bytes(back), from))
}

func (p *printer) credential() {
	c, there := p.s.Credential, 0
	if c != nil {
		there = 1
	}
	if !p.title("credential", there) {
		return
	}
	switch now := p.s.Now; {
	case c.Expires.IsZero():
		p.field(2, "ends", Bad, "there is none yet: not enrolled")
	case c.Expires.Before(now):
		p.field(2, "ends", Bad, fmt.Sprintf("ended %s ago, at %s", Age(c.Expires, now), c.Expires.Local().Format(time.DateTime)))
	default:
		p.field(2, "ends", Good, fmt.Sprintf("in %s, at %s", Long(c.Expires.Sub(now)), c.Expires.Local().Format(time.DateTime)))
	}
	var attributes []string
	for _, name := range slices.Sorted(maps.Keys(c.Attributes)) {
		attributes = append(attributes, fmt.Sprintf("%s=%s", name, c.Attributes[name]))
	}
	p.field(2, "says", Plain, strings.Join(attributes, " "))
	p.field(2, "authority", Plain, string(c.Authority))
	if !c.Connected {
		p.field(2, "", Warn, "not connected to it")
	}
	p.field(2, "revoked", Bad, string(c.Revoked))
	p.field(2, "last error", Warn, string(c.LastError))
}

func (p *printer) services() {
	if !p.title("services", len(p.s.Services)) {
		return
	}
	for _, v := range p.s.Services {
		p.line(2, Bold, string(v.Service))
		p.field(4, "listens at", Plain, string(v.Listen))
		p.field(4, "outlet", Plain, string(v.Outlet))
		if v.Replicas != nil {
			p.replicas(v.Replicas)
		}
		p.field(4, "target", Plain, string(v.Target))
		p.field(4, "allows", Plain, allows(&v))
		p.field(4, "carries", Plain, joined(Count(v.Streams, "stream", "streams"), unless(v.Opened == 0, fmt.Sprintf("%d since the start", v.Opened)),
			traffic(v.ToService, v.ToClient, "to it", "back")))
	}
}

// allows says who may use an outlet's service.
func allows(v *Service) string {
	switch {
	case v.Expression != "":
		return string(v.Expression)
	case v.Target == "":
		return ""
	case len(v.Allow) == 0:
		return "nobody"
	case len(v.Allow) == 1:
		return string(v.Allow[0])
	}
	return fmt.Sprintf("%d identifiers", len(v.Allow))
}

func (p *printer) replicas(r *Replicas) {
	inUse := 0
	for _, one := range r.List {
		if one.State == "in_use" {
			inUse++
		}
	}
	p.field(4, "outlets", Plain, fmt.Sprintf("any that proves to offer it: %d known, %d in use", r.Known, inUse))
	p.field(4, "", Bad, string(r.LastError))
	for _, one := range r.List {
		p.line(6, StateStyle(one.State), joined(fmt.Sprintf("%s  %s", Short(one.Outlet), words(one.State)), Count(one.Streams, "stream", "streams"), unless(!one.Draining, "draining"),
			unless(one.Route == "", "by "+Hops(one.Route))))
		if one.LastError != "" {
			p.line(8, Dim, string(one.LastError))
		}
	}
}

// words returns a stable word of the status as people write it.
func words(state Text) string { return strings.ReplaceAll(string(state), "_", " ") }

func (p *printer) channels() {
	if !p.title("channels", len(p.s.Channels)) {
		return
	}
	for i := range p.s.Channels {
		c := &p.s.Channels[i]
		who, state := c.Outlet, c.State
		if who == "" { // as an outlet has it
			who, state = c.Peer, "open"
			if c.Path != nil && !c.Path.Up {
				state = "resuming"
			}
		}
		p.line(2, Plain, joined(fmt.Sprintf("%s  %s", Bold.Paint(Short(who)), StateStyle(state).Paint(words(state))), string(c.Name), unless(c.Service == "", "for "+string(c.Service)),
			Count(c.Streams, "stream", "streams"), unless(c.Since.IsZero(), "opened "+Age(c.Since, p.s.Now)+" ago")))
		p.path(c)
		known := slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Error != "" }) // by the routes below
		p.field(4, "last error", Warn, unless(known || c.State == "open", string(c.LastError)))
		p.routesOf(c, 4)
	}
}

func (p *printer) path(c *Channel) {
	t := c.Path
	switch {
	case t == nil:
	case !t.Up:
		p.field(4, "path", Warn, joined("none for "+Age(t.Since, p.s.Now), string(t.Error)))
	default:
		p.field(4, "path", Plain, joined("up "+Age(t.Since, p.s.Now), unless(t.Ping == 0, "ping "+Brief(t.Ping)), unless(t.Keys.IsZero(), "keys of "+Age(t.Keys, p.s.Now)+" ago"),
			unless(t.Changes == 0, Count(t.Changes, "change", "changes"))))
	}
	if len(c.Routes) == 0 {
		p.field(4, "route", Plain, Hops(c.Route))
	}
}

func (p *printer) routesOf(c *Channel, indent int) {
	for _, r := range c.Routes {
		p.field(indent, words(r.State), StateStyle(r.State), Hops(r.Route))
		p.field(indent, "", Dim, Why(r.Error))
	}
}

func (p *printer) routes() {
	n := 0
	for _, c := range p.s.Channels {
		n += len(c.Routes)
	}
	if !p.title("routes", n) {
		return
	}
	for i := range p.s.Channels {
		c := &p.s.Channels[i]
		if len(c.Routes) > 0 {
			p.line(2, Bold, "to "+Short(c.Outlet))
			p.routesOf(c, 4)
		}
	}
}

func (p *printer) registrations() {
	if !p.title("registrations", len(p.s.Registrations)) {
		return
	}
	for _, g := range p.s.Registrations {
		if p.s.Role == Relay {
			p.line(2, Plain, joined(fmt.Sprintf("%s  from %s", Bold.Paint(Short(g.Identifier)), g.Remote), "for "+Age(g.Since, p.s.Now),
				Count(g.Spares, "spare connection", "spare connections"), unless(g.Waiting == 0, Count(g.Waiting, "caller waits", "callers wait")), unless(!g.Draining, "draining")))
			continue
		}
		state, style := "registered", Good
		if !g.Registered {
			state, style = "not registered", Bad
		}
		p.line(2, Plain, joined(fmt.Sprintf("%s  %s", style.Paint(state), g.Address), "for "+Age(g.Since, p.s.Now),
			Count(g.Spares, "spare connection", "spare connections"), unless(!g.Draining, "the relay is draining")))
		p.field(4, "route", Plain, Hops(g.Route))
		p.field(4, "last error", Warn, unless(g.Registered, string(g.LastError)))
	}
}

func (p *printer) refusals() {
	if !p.title("refusals", len(p.s.Refusals)) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.s.Refusals)) {
		p.line(2, Plain, fmt.Sprintf("%-24s %d", name, p.s.Refusals[name]))
	}
}
