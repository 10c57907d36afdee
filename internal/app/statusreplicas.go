package app

import (
	"cmp"
	"slices"
	"strings"
)

// ReplicasStatus is what an inlet knows of the outlets that offer a service.
type ReplicasStatus struct {
	Known     int             `json:"known"` // as relays list them
	List      []ReplicaStatus `json:"list"`
	Routes    []RouteStatus   `json:"routes"` // whose relays are asked
	LastError string          `json:"last_error,omitempty"`
}

// The states of a replica.
const (
	replicaInUse      = "in_use"     // takes new streams
	replicaConnecting = "connecting" // would, if it could be reached
	replicaFinishing  = "finishing"  // keeps the streams that it has
	replicaAside      = "aside"      // is left alone, since it does not prove that it offers the service
)

// A ReplicaStatus is one process of an outlet's. Its channels are among the inlet's.
type ReplicaStatus struct {
	Outlet    string `json:"outlet"`
	Instance  string `json:"instance"`
	State     string `json:"state"`
	Draining  bool   `json:"draining"`
	Streams   int    `json:"streams"` // of this inlet, all its services together
	Path      bool   `json:"path"`
	Route     string `json:"route,omitempty"` // of the path
	LastError string `json:"last_error,omitempty"`
}

// status returns what /status shows.
func (b *balancer) status() *ReplicasStatus {
	st := &ReplicasStatus{List: []ReplicaStatus{}, Routes: []RouteStatus{}}
	if err := b.ready(); err != nil {
		st.LastError = err.Error()
	}
	used := map[string]bool{}
	b.mu.Lock()
	defer b.mu.Unlock()
	st.Known = b.listed
	for r := range b.all {
		h, streams := r.link.available()
		s := ReplicaStatus{Outlet: r.outlet.String(), Instance: r.instance.String(), State: replicaFinishing, Draining: r.draining, Streams: streams}
		if b.chosen[r.replicaKey] == r {
			s.State = replicaConnecting
		}
		if h != nil {
			if i, _, err := h.session.Path(); err == nil {
				s.Path, s.Route = true, r.link.routes.of(i).String()
				used[s.Route] = true
			}
			if s.State == replicaConnecting {
				s.State = replicaInUse
			}
		} else if err := r.link.lastError(); err != nil {
			s.LastError = err.Error()
		}
		st.List = append(st.List, s)
	}
	for k, a := range b.aside {
		st.List = append(st.List, ReplicaStatus{Outlet: k.outlet.String(), Instance: k.instance.String(), State: replicaAside, LastError: a.why.Error()})
	}
	slices.SortFunc(st.List, func(x, y ReplicaStatus) int {
		return cmp.Or(strings.Compare(x.Outlet, y.Outlet), strings.Compare(x.Instance, y.Instance))
	})
	answers, _ := b.discovery.answers()
	for _, a := range answers {
		s := RouteStatus{Route: a.route.String(), State: routeSpare}
		switch {
		case used[s.Route]:
			s.State = routeUsed
		case a.err != nil:
			s.State = routeFailed
		}
		s.Error = errText(a.err)
		st.Routes = append(st.Routes, s)
	}
	return st
}
