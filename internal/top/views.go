package top

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/watch"
)

// A view is one of the lists that a role has.
type view struct {
	name     string
	columns  []watch.Column
	sortings []sorting
	rows     func(m *Model) []row
}

// A row is one line of a list, and what it is sorted by.
type row struct {
	cells []string
	style watch.Style

	rate, total float64
	since       time.Time
	order       int // in which the process names it
}

// A sorting is an order of rows.
type sorting struct {
	name    string
	compare func(a, b row) int
}

func asNamed(a, b row) int  { return cmp.Compare(a.order, b.order) }
func byRate(a, b row) int   { return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(b.total, a.total)) }
func byTotal(a, b row) int  { return cmp.Compare(b.total, a.total) }
func byAge(a, b row) int    { return a.since.Compare(b.since) }
func byFirst(a, b row) int  { return slices.Compare(a.cells, b.cells) }
func bySecond(a, b row) int { return cmp.Or(cmp.Compare(a.cells[1], b.cells[1]), byFirst(a, b)) }

// views returns the lists that the process's role has. Before the first answer there is
// one that is empty.
func (m *Model) views() []view {
	if m.status == nil {
		return []view{streamsView}
	}
	switch m.status.Role {
	case watch.Relay:
		return []view{joinsView, registeredView}
	case watch.Inlet:
		return []view{streamsView, channelsView, routesView, servicesView}
	default: // an authority is reached as an outlet is
		return []view{streamsView, channelsView, registrationsView, servicesView}
	}
}

func (m *Model) current() view { return m.views()[m.view] }

// rows returns those of the present view that the filter lets through, in order.
func (m *Model) rows() []row {
	if m.status == nil {
		return nil
	}
	v := m.current()
	rows := v.rows(m)
	for i := range rows {
		rows[i].order = i
	}
	if m.filter != "" {
		want := strings.ToLower(m.filter)
		rows = slices.DeleteFunc(rows, func(r row) bool {
			return !slices.ContainsFunc(r.cells, func(c string) bool { return strings.Contains(strings.ToLower(c), want) })
		})
	}
	slices.SortStableFunc(rows, v.sortings[m.sort].compare)
	if m.turned {
		slices.Reverse(rows)
	}
	return rows
}

// The lists; they are never written.
var (
	streamsView = view{
		name: "streams",
		columns: []watch.Column{
			{Title: "SERVICE", Width: 9, Grows: true},
			{Title: "PEER", Width: 11, Drop: 2},
			{Title: "CLIENT", Width: 15, Grows: true, Drop: 1},
			{Title: "AGE", Width: 6, Right: true, Drop: 3},
			{Title: "THERE/S", Width: 8, Right: true},
			{Title: "BACK/S", Width: 8, Right: true},
			{Title: "BYTES", Width: 8, Right: true, Drop: 4},
		},
		sortings: []sorting{{"rate", byRate}, {"bytes", byTotal}, {"age", byAge}, {"service", byFirst}, {"peer", bySecond}},
		rows:     (*Model).streamRows,
	}
	joinsView = view{
		name: "joins",
		columns: []watch.Column{
			{Title: "REQUEST", Width: 7, Drop: 2},
			{Title: "CALLER", Width: 11, Grows: true},
			{Title: "TARGET", Width: 11, Grows: true, Drop: 1},
			{Title: "AGE", Width: 6, Right: true, Drop: 3},
			{Title: "THERE/S", Width: 8, Right: true},
			{Title: "BACK/S", Width: 8, Right: true},
			{Title: "BYTES", Width: 8, Right: true, Drop: 4},
		},
		sortings: []sorting{{"rate", byRate}, {"bytes", byTotal}, {"age", byAge}, {"caller", bySecond}},
		rows:     (*Model).joinRows,
	}
	channelsView = view{
		name: "channels",
		columns: []watch.Column{
			{Title: "PEER", Width: 11, Grows: true},
			{Title: "STATE", Width: 10},
			{Title: "PATH", Width: 6, Right: true, Drop: 2},
			{Title: "PING", Width: 8, Right: true, Drop: 1},
			{Title: "KEYS", Width: 6, Right: true, Drop: 4},
			{Title: "STREAMS", Width: 7, Right: true},
			{Title: "ROUTE", Width: 16, Grows: true, Drop: 3},
		},
		sortings: []sorting{{"order", asNamed}, {"streams", byTotal}, {"age", byAge}, {"state", bySecond}},
		rows:     (*Model).channelRows,
	}
	routesView = view{
		name: "routes",
		columns: []watch.Column{
			{Title: "TO", Width: 11},
			{Title: "STATE", Width: 8},
			{Title: "ROUTE", Width: 20, Grows: true},
			{Title: "WHY", Width: 20, Grows: true, Drop: 1},
		},
		sortings: []sorting{{"order", asNamed}, {"state", bySecond}},
		rows:     (*Model).routeRows,
	}
	servicesView = view{
		name: "services",
		columns: []watch.Column{
			{Title: "SERVICE", Width: 12, Grows: true},
			{Title: "AT", Width: 18, Grows: true, Drop: 1},
			{Title: "STREAMS", Width: 7, Right: true},
			{Title: "OPENED", Width: 8, Right: true, Drop: 3},
			{Title: "THERE", Width: 8, Right: true, Drop: 2},
			{Title: "BACK", Width: 8, Right: true, Drop: 2},
		},
		sortings: []sorting{{"order", asNamed}, {"bytes", byTotal}, {"service", byFirst}},
		rows:     (*Model).serviceRows,
	}
	registrationsView = view{
		name: "registrations",
		columns: []watch.Column{
			{Title: "RELAY", Width: 21, Grows: true},
			{Title: "STATE", Width: 14},
			{Title: "FOR", Width: 6, Right: true, Drop: 2},
			{Title: "SPARE", Width: 5, Right: true, Drop: 3},
			{Title: "WHY", Width: 20, Grows: true, Drop: 1},
		},
		sortings: []sorting{{"order", asNamed}, {"state", bySecond}},
		rows:     (*Model).registrationRows,
	}
	registeredView = view{
		name: "registrations",
		columns: []watch.Column{
			{Title: "OUTLET", Width: 11, Grows: true},
			{Title: "FROM", Width: 21, Grows: true, Drop: 1},
			{Title: "FOR", Width: 6, Right: true, Drop: 2},
			{Title: "SPARE", Width: 5, Right: true},
			{Title: "WAITING", Width: 7, Right: true},
		},
		sortings: []sorting{{"order", asNamed}, {"age", byAge}, {"outlet", byFirst}},
		rows:     (*Model).registeredRows,
	}
)

func (m *Model) age(since time.Time) string { return watch.Age(since, m.status.Now) }

// speed prints a rate, and nothing for none.
func speed(bytes float64) string {
	if bytes < 1 {
		return ""
	}
	return watch.Bytes(bytes)
}

func (m *Model) streamRows() (rows []row) {
	for i := range m.status.Streams {
		s := &m.status.Streams[i]
		r := m.rates.of[string(s.ID)]
		rows = append(rows, row{
			cells: []string{string(s.Service), watch.PeerOf(s), string(s.Client), m.age(s.Since), speed(r.there), speed(r.back), watch.Bytes(s.ToService + s.ToClient)},
			rate:  r.sum(), total: float64(s.ToService + s.ToClient), since: s.Since,
		})
	}
	return rows
}

func (m *Model) joinRows() (rows []row) {
	for i := range m.status.Joins {
		j := &m.status.Joins[i]
		r := m.rates.of[joinID(j)]
		rows = append(rows, row{
			cells: []string{string(j.Request), watch.Short(j.Caller), watch.Short(j.Target), m.age(j.Since), speed(r.there), speed(r.back), watch.Bytes(j.ToTarget + j.ToCaller)},
			rate:  r.sum(), total: float64(j.ToTarget + j.ToCaller), since: j.Since,
		})
	}
	return rows
}

func (m *Model) channelRows() (rows []row) {
	for i := range m.status.Channels {
		c := &m.status.Channels[i]
		peer, state := c.Outlet, c.State
		if peer == "" {
			peer, state = c.Peer, "open"
		}
		who := watch.Short(peer)
		if c.Name != "" {
			who = string(c.Name)
		}
		var up, ping, keys string
		if p := c.Path; p != nil {
			if !p.Up {
				state = "resuming"
			}
			up, ping, keys = m.age(p.Since), watch.Brief(p.Ping), m.age(p.Keys)
		}
		rows = append(rows, row{
			cells: []string{who, string(state), up, ping, keys, strconv.Itoa(c.Streams), watch.Hops(c.Route)},
			style: watch.StateStyle(state), total: float64(c.Streams), since: c.Since,
		})
	}
	return rows
}

func (m *Model) routeRows() (rows []row) {
	add := func(to watch.Text, routes []watch.Route) {
		for _, r := range routes {
			rows = append(rows, row{
				cells: []string{watch.Short(to), strings.ReplaceAll(string(r.State), "_", " "), watch.Hops(r.Route), watch.Why(r.Error)},
				style: watch.StateStyle(r.State),
			})
		}
	}
	for i := range m.status.Channels {
		add(m.status.Channels[i].Outlet, m.status.Channels[i].Routes)
	}
	for i := range m.status.Services {
		if r := m.status.Services[i].Replicas; r != nil {
			add(m.status.Services[i].Service, r.Routes)
		}
	}
	return rows
}

func (m *Model) serviceRows() (rows []row) {
	for i := range m.status.Services {
		s := &m.status.Services[i]
		at := s.Listen
		if at == "" {
			at = s.Target
		}
		rows = append(rows, row{
			cells: []string{string(s.Service), string(at), strconv.FormatInt(s.Streams, 10), strconv.FormatUint(s.Opened, 10), watch.Bytes(s.ToService), watch.Bytes(s.ToClient)},
			total: float64(s.ToService + s.ToClient),
		})
	}
	return rows
}

func (m *Model) registrationRows() (rows []row) {
	for i := range m.status.Registrations {
		g := &m.status.Registrations[i]
		state, style, why := "registered", watch.Good, watch.Text("")
		switch {
		case !g.Registered:
			state, style, why = "not registered", watch.Bad, g.LastError
		case g.Draining:
			state, style = "draining", watch.Warn
		}
		rows = append(rows, row{cells: []string{string(g.Address), state, m.age(g.Since), strconv.Itoa(g.Spares), string(why)}, style: style, since: g.Since})
	}
	return rows
}

func (m *Model) registeredRows() (rows []row) {
	for i := range m.status.Registrations {
		g := &m.status.Registrations[i]
		rows = append(rows, row{cells: []string{watch.Short(g.Identifier), string(g.Remote), m.age(g.Since), strconv.Itoa(g.Spares), strconv.Itoa(g.Waiting)}, since: g.Since})
	}
	return rows
}
