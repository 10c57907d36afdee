package app

import (
	"slices"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/route"
)

// unlistedRouteFor is how long what is known of a route is kept that is listed no
// more and that no session uses: longer than any attempt at it can take.
const unlistedRouteFor = config.MaxGrace + time.Minute

// linkRoutes are the routes of a link, and how each did last. The settings may list
// others while sessions still use one that is listed no more: a route has a number,
// which stays its own.
type linkRoutes struct {
	mu     sync.Mutex
	listed []int // numbers, the best first; another slice takes its place, none is written
	known  map[int]*linkRoute
	next   int // the number of the next route that is new
}

// A linkRoute is one of them.
type linkRoute struct {
	route.Route
	err  error     // why it did not work last; nil if it did, or was not tried
	left time.Time // since when it is listed no more; zero while it is
}

// newLinkRoutes numbers routes from 0.
func newLinkRoutes(routes []route.Route) *linkRoutes {
	r := &linkRoutes{known: map[int]*linkRoute{}}
	r.list(routes, nil, time.Time{})
	return r
}

// list makes these routes those that are listed, the best first, and reports whether
// that changes anything. Numbers in use, and those that were in use not long ago, keep
// their route.
func (r *linkRoutes) list(routes []route.Route, used []int, now time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	listed := make([]int, 0, len(routes))
	for _, wanted := range routes {
		if n := r.numberLocked(wanted); !slices.Contains(listed, n) {
			listed = append(listed, n)
		}
	}
	if slices.Equal(listed, r.listed) {
		return false
	}
	r.listed = listed
	for n, known := range r.known {
		switch {
		case slices.Contains(listed, n):
			known.left = time.Time{}
		case known.left.IsZero():
			known.left = now
		case now.Sub(known.left) >= unlistedRouteFor && !slices.Contains(used, n):
			delete(r.known, n)
		}
	}
	return true
}

// numberLocked returns the number of a route, which is a new one where it has none.
func (r *linkRoutes) numberLocked(wanted route.Route) int {
	for n, known := range r.known {
		if slices.Equal(known.Route, wanted) {
			return n
		}
	}
	n := r.next
	r.next++
	r.known[n] = &linkRoute{Route: wanted}
	return n
}

// numbers returns those that are listed, the best first. The slice is not written.
func (r *linkRoutes) numbers() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listed
}

// of returns the route of a number that a session or an attempt has, nil for one that
// there never was.
func (r *linkRoutes) of(n int) route.Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.known[n]; known != nil {
		return known.Route
	}
	return nil
}

// behind returns the place of the route that comes after one, the first where that is
// the last, or is listed no more.
func (r *linkRoutes) behind(n int) (place int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place = slices.Index(r.listed, n) + 1; place == len(r.listed) {
		return 0
	}
	return place
}

// set notes how a route did last: err is nil where it has worked.
func (r *linkRoutes) set(n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.known[n]; known != nil {
		known.err = err
	}
}

// A listedRoute is one of those that are listed, its number, and why it did not work
// last: nil if it did, or was not tried.
type listedRoute struct {
	route.Route
	number int
	err    error
}

// states returns the listed routes, the best first.
func (r *linkRoutes) states() []listedRoute {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]listedRoute, len(r.listed))
	for i, n := range r.listed {
		list[i] = listedRoute{r.known[n].Route, n, r.known[n].err}
	}
	return list
}
