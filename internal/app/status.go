package app

import (
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
)

// InletStatus is what an inlet's /status shows.
type InletStatus struct {
	ProcessStatus
	Identifier string            `json:"identifier"`
	Instance   string            `json:"instance"`
	Credential *CredentialStatus `json:"credential,omitempty"` // nil: the process is nobody's member
	Totals     TotalsStatus      `json:"totals"`
	Services   []InletEntry      `json:"services"`
	Channels   []ChannelStatus   `json:"channels"`
	StreamsStatus
}

// An InletEntry is a service as the inlet offers it to local clients.
type InletEntry struct {
	Listen  string `json:"listen"`
	Service string `json:"service"`
	Outlet  string `json:"outlet,omitempty"` // "": any that proves to offer the service
	Streams int64  `json:"streams"`
	CarriedStatus
	// Replicas are those that such a service can be had from.
	Replicas *ReplicasStatus `json:"replicas,omitempty"`
}

// CarriedStatus are the numbers of a service's streams since the process has started.
// They move while streams run.
type CarriedStatus struct {
	StreamsOpened  int64 `json:"streams_opened"`
	BytesToService int64 `json:"bytes_to_service"`
	BytesToClient  int64 `json:"bytes_to_client"`
}

// A ChannelStatus is an inlet's way to one outlet: the channel that new streams
// use, or why there is none.
type ChannelStatus struct {
	Outlet    string          `json:"outlet"`
	Instance  string          `json:"instance,omitempty"` // "": any
	Service   string          `json:"service,omitempty"`  // that the outlet has proven to offer; "": its identifier is enough
	State     string          `json:"state"`              // open, resuming or connecting
	Channel   string          `json:"channel,omitempty"`  // the channel's ID, as both ends have it
	Sent      uint64          `json:"bytes_sent"`         // on the channel, what its streams cost included
	Received  uint64          `json:"bytes_received"`
	Route     string          `json:"route,omitempty"` // of the path, or of the last one
	Since     *time.Time      `json:"since,omitempty"` // when the channel was opened
	Path      *PathStatus     `json:"path,omitempty"`
	Streams   int             `json:"streams"`
	Finishing []FinishingPart `json:"finishing,omitempty"` // channels that take no new streams
	LastError string          `json:"last_error,omitempty"`
	Routes    []RouteStatus   `json:"routes"` // all of them, best first
}

// A PathStatus is what carries a channel now, or that nothing does.
type PathStatus struct {
	Up       bool      `json:"up"`
	Since    time.Time `json:"since"`      // of Up, or of its end
	Attempts uint64    `json:"attempts"`   // at other paths, since the channel was opened
	Held     int       `json:"held_bytes"` // for sending again, or for a reader
	Error    string    `json:"error,omitempty"`
	// Measured while much is sent; 0 before.
	RTT   float64 `json:"rtt_seconds"`              // the shortest of late
	Rate  int64   `json:"bytes_per_second"`         // what the path has carried to the peer
	Under uint64  `json:"under_way_bytes"`          // sent, and not known to have arrived
	Bound uint64  `json:"under_way_most,omitempty"` // 0 while there is no bound

	KeysSince time.Time `json:"keys_since"`   // when the handshake was that the path's keys are from
	Changes   uint64    `json:"changes"`      // how often the channel has got another path
	Ping      float64   `json:"ping_seconds"` // how long the peer took for its last answer; 0 before
}

// The states of a route.
const (
	routeUsed   = "in_use" // carries a channel
	routeFailed = "failed" // the last attempt did
	routeSpare  = "spare"  // worked, or was not tried
)

// A RouteStatus is a route and how it did last.
type RouteStatus struct {
	Route string `json:"route"`
	State string `json:"state"`
	Error string `json:"error,omitempty"`
}

func pathStatus(st *channel.State) *PathStatus {
	p := &PathStatus{
		Up: st.Up, Since: st.Since, Attempts: st.Epoch, Held: st.Kept,
		RTT: st.Flight.RTT.Seconds(), Rate: int64(st.Flight.Rate), Under: st.Flight.Under, Bound: st.Flight.Bound,
		KeysSince: st.Keys, Changes: st.Changes, Ping: st.Ping.Seconds(),
	}
	if st.Err != nil {
		p.Error = st.Err.Error()
	}
	return p
}

// A FinishingPart is a channel that another one has taken the place of.
type FinishingPart struct {
	Channel string    `json:"channel,omitempty"`
	Route   string    `json:"route"`
	Since   time.Time `json:"since"`
	Streams int       `json:"streams"`
}

// Status returns what /status shows.
func (in *Inlet) Status() InletStatus { return in.statusOf(defaultEntries) }

// statusOf is Status with at most so many streams.
func (in *Inlet) statusOf(most int) InletStatus {
	sums := in.streams.table.sums()
	st := InletStatus{
		ProcessStatus: in.processStatus(), Identifier: in.Identifier().String(), Instance: in.local.Instance().String(), Credential: in.member.status(),
		Totals: in.streams.totals(total(sums)),
	}
	st.StreamsStatus = in.streams.newest(most, st.Totals.StreamsActive)
	services, addrs := in.offered()
	for i, s := range services {
		e := InletEntry{Listen: s.Listen.String(), Service: s.Service, Streams: sums[s.metrics.count].active(), CarriedStatus: in.streams.carried(sums[s.metrics.count])}
		if b, ok := s.upstream.(*balancer); ok {
			e.Replicas = b.status()
		} else {
			e.Outlet = s.Outlet.String()
		}
		if addrs[i] != nil {
			e.Listen = placeOf(addrs[i])
		}
		st.Services = append(st.Services, e)
	}
	for _, l := range in.allLinks() {
		st.Channels = append(st.Channels, l.status())
	}
	return st
}

// A way is how an outlet, or a relay that finds outlets, is reached.
type way struct {
	outlet string // "": of a relay
	routes []RouteStatus
}

// ways returns all ways that the settings name.
func (in *Inlet) ways() (list []way) {
	for _, u := range in.wanted() {
		list = append(list, u.way())
	}
	return list
}

func (l *link) way() way {
	st := l.status()
	return way{st.Outlet, st.Routes}
}

func (b *balancer) way() way { return way{"", b.status().Routes} }

func (l *link) status() ChannelStatus {
	st := ChannelStatus{Outlet: l.outlet.String(), Service: l.service, State: "connecting"}
	if l.instance != nil {
		st.Instance = l.instance.String()
	}
	if err := l.lastError(); err != nil {
		st.LastError = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	used := map[int]bool{}
	for h := range l.all {
		i, _, err := h.session.Path()
		route := l.routes.of(max(i, 0)).String()
		if err == nil {
			used[i] = true
		}
		s, lasts := h.session.(*lasting)
		if h != l.current {
			part := FinishingPart{Route: route, Since: h.since, Streams: h.uses}
			if lasts {
				part.Channel = s.ch.ID().String()
			}
			st.Finishing = append(st.Finishing, part)
			continue
		}
		since := h.since
		st.State, st.Route, st.Since, st.Streams = "open", route, &since, h.uses
		if err != nil {
			st.State = "resuming"
		}
		if lasts {
			of := s.ch.State()
			st.Channel, st.Sent, st.Received, st.Path = s.ch.ID().String(), of.Sent, of.Received, pathStatus(&of)
		}
	}
	for _, r := range l.routes.states() {
		st.Routes = append(st.Routes, r.status(used[r.number]))
	}
	slices.SortFunc(st.Finishing, func(a, b FinishingPart) int { return a.Since.Compare(b.Since) })
	return st
}

func (r *listedRoute) status(used bool) RouteStatus {
	st := RouteStatus{Route: r.String(), State: routeSpare}
	if used {
		st.State = routeUsed
	} else if r.err != nil {
		st.State, st.Error = routeFailed, r.err.Error()
	}
	return st
}

// OutletStatus is what an outlet's /status shows.
type OutletStatus struct {
	ProcessStatus
	Identifier    string               `json:"identifier"`
	Instance      string               `json:"instance"`
	Credential    *CredentialStatus    `json:"credential,omitempty"` // nil: the process is nobody's member
	Totals        TotalsStatus         `json:"totals"`
	Listen        []string             `json:"listen"`
	Services      []OutletEntry        `json:"services"`
	Registrations []RegistrationStatus `json:"registrations"`
	Channels      []PeerChannel        `json:"channels"`
	StreamsStatus
}

// An OutletEntry is a service as the outlet offers it.
type OutletEntry struct {
	Service    string   `json:"service"`
	Target     string   `json:"target"`
	Allow      []string `json:"allow"`                // of a list
	Expression string   `json:"expression,omitempty"` // in its place
	Streams    int64    `json:"streams"`
	CarriedStatus
}

// A RegistrationStatus is one relay address that the outlet registers at.
type RegistrationStatus struct {
	Route      string    `json:"route"`
	Address    string    `json:"address"`
	Registered bool      `json:"registered"`
	Since      time.Time `json:"since"` // of the last change
	Draining   bool      `json:"draining"`
	Spares     int       `json:"spares"`
	LastError  string    `json:"last_error,omitempty"`
}

// A PeerChannel is a channel that an inlet has opened.
type PeerChannel struct {
	Peer     string      `json:"peer"`
	Instance string      `json:"instance"`
	Name     string      `json:"name,omitempty"`
	Channel  string      `json:"channel"`
	Sent     uint64      `json:"bytes_sent"` // on the channel, what its streams cost included
	Received uint64      `json:"bytes_received"`
	Route    string      `json:"route,omitempty"`
	Since    time.Time   `json:"since"`
	Path     *PathStatus `json:"path"`
	Streams  int         `json:"streams"`
}

// Status returns what /status shows.
func (out *Outlet) Status() OutletStatus { return out.statusOf(defaultEntries) }

// statusOf is Status with at most so many streams.
func (out *Outlet) statusOf(most int) OutletStatus {
	sums := out.streams.table.sums()
	st := OutletStatus{
		ProcessStatus: out.processStatus(), Totals: out.streams.totals(total(sums)),
		Identifier: out.Identifier().String(), Instance: out.local.Instance().String(), Credential: out.member.status(),
		Listen: []string{}, Services: []OutletEntry{}, Registrations: []RegistrationStatus{}, Channels: []PeerChannel{},
	}
	st.StreamsStatus = out.streams.newest(most, st.Totals.StreamsActive)
	for _, a := range out.Addrs() {
		st.Listen = append(st.Listen, a.String())
	}
	for _, c := range out.offered.Load().services {
		e := OutletEntry{Service: c.Name, Target: c.Shown(), Allow: []string{}, Expression: c.Allow.Expression(), Streams: sums[c.metrics.count].active(), CarriedStatus: out.streams.carried(sums[c.metrics.count])}
		for _, id := range c.Allow.IDs() {
			e.Allow = append(e.Allow, id.String())
		}
		st.Services = append(st.Services, e)
	}
	for _, a := range out.agents.all() {
		st.Registrations = append(st.Registrations, a.status()...)
	}
	for _, ch := range out.channels.list() {
		of := ch.session.ch.State()
		st.Channels = append(st.Channels, PeerChannel{
			Peer: ch.peer.Identifier.String(), Instance: ch.peer.Instance.String(), Name: ch.peer.Name, Channel: ch.session.ch.ID().String(),
			Sent: of.Sent, Received: of.Received, Route: of.Via, Since: ch.since, Path: pathStatus(&of), Streams: ch.session.Streams(),
		})
	}
	slices.SortFunc(st.Channels, func(a, b PeerChannel) int {
		if c := strings.Compare(a.Peer, b.Peer); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return st
}

// RelayStatus is what a relay's /status shows.
type RelayStatus struct {
	ProcessStatus
	Identifier    string              `json:"identifier"`
	Instance      string              `json:"instance"`
	Credential    *CredentialStatus   `json:"credential,omitempty"` // nil: the process is nobody's member
	Listen        []string            `json:"listen"`
	Draining      bool                `json:"draining"`
	Connections   int                 `json:"connections"`
	Registrations []RelayRegistration `json:"registrations"`
	Totals        JoinsStatus         `json:"totals"`
	Joins         []RelayJoin         `json:"joins"` // newest first
	JoinsLeftOff  int                 `json:"joins_left_off"`
	Refusals      map[string]uint64   `json:"refusals"` // by code, since the start
}

// A RelayRegistration is an outlet instance that is registered at the relay.
type RelayRegistration struct {
	Identifier string    `json:"identifier"`
	Instance   string    `json:"instance"`
	Remote     string    `json:"remote"`
	Since      time.Time `json:"since"`
	Spares     int       `json:"spares"`
	Waiting    int       `json:"waiting"`
	Draining   bool      `json:"draining"`
}

// A RelayJoin is a caller that is joined to an outlet or to another relay.
type RelayJoin struct {
	Request        string    `json:"request"`
	Caller         string    `json:"caller"`
	CallerInstance string    `json:"caller_instance"`
	Target         string    `json:"target"`
	TargetInstance string    `json:"target_instance,omitempty"`
	Since          time.Time `json:"since"`
	BytesToTarget  int64     `json:"bytes_to_target"`
	BytesToCaller  int64     `json:"bytes_to_caller"`
}

// Status returns what /status shows.
func (r *Relay) Status() RelayStatus { return r.statusOf(defaultEntries) }

// statusOf is Status with at most so many joins.
func (r *Relay) statusOf(most int) RelayStatus {
	s := r.server.Newest(most)
	st := RelayStatus{
		ProcessStatus: r.processStatus(), JoinsLeftOff: s.LeftOff,
		Totals:     JoinsStatus{JoinsActive: int64(s.Counts.Joins), JoinsOpened: int64(s.Counts.Joined), BytesToTarget: s.Counts.ToTarget, BytesToCaller: s.Counts.ToCaller},
		Identifier: r.Identifier().String(), Instance: r.local.Instance().String(), Credential: r.member.status(), Listen: []string{},
		Draining: s.Draining, Connections: s.Conns,
		Registrations: []RelayRegistration{}, Joins: []RelayJoin{}, Refusals: map[string]uint64{},
	}
	for _, a := range r.Addrs() {
		st.Listen = append(st.Listen, a.String())
	}
	for _, g := range s.Registrations {
		st.Registrations = append(st.Registrations, RelayRegistration{
			Identifier: g.Identifier.String(), Instance: g.Instance, Remote: g.Remote, Since: g.Since,
			Spares: g.Spares, Waiting: g.Waiting, Draining: g.Draining,
		})
	}
	for _, j := range s.Joins {
		st.Joins = append(st.Joins, RelayJoin{
			Request: j.Kind, Caller: j.Caller.String(), CallerInstance: j.CallerInstance, Target: j.Target,
			TargetInstance: j.TargetInstance, Since: j.Since, BytesToTarget: j.ToTarget, BytesToCaller: j.ToCaller,
		})
	}
	for c, n := range s.Refusals {
		st.Refusals[c.String()] = n
	}
	return st
}
