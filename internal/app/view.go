package app

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/culvert-net/culvert/internal/obs"
)

const (
	// defaultEntries is how many streams or joins a status has, unless the parameter of that
	// name says otherwise, and maxEntries the most.
	defaultEntries = 100
	maxEntries     = 10_000
)

// A view is what a process shows of itself on its admin server.
type view struct {
	many    string             // which of the parameters says how many: streams or joins
	status  func(most int) any // returns what /status shows, with at most so many
	history historian
}

// A historian keeps what /status/history shows.
type historian interface {
	// run takes samples until ctx ends.
	run(ctx context.Context)
	// show returns what there is now.
	show() any
}

// answer returns the status for one who asks with those parameters. Both are known
// to every process, so that one can ask without knowing what it asks.
func (v *view) answer(parameters url.Values) (any, error) {
	most := defaultEntries
	for name, values := range parameters {
		if name != "streams" && name != "joins" {
			return nil, fmt.Errorf("there is no parameter %q: there are streams and joins, which say how many are to be listed", name)
		}
		n, err := strconv.ParseUint(values[0], 10, 16)
		if err != nil || len(values) != 1 || n > maxEntries {
			return nil, fmt.Errorf("%s is %q: want a number from 0 to %d, once", name, values, maxEntries)
		}
		if name == v.many {
			most = int(n)
		}
	}
	return v.status(most), nil
}

// ProcessStatus says which process a status is of.
type ProcessStatus struct {
	Role    string    `json:"role"` // inlet, outlet, relay or authority
	Version string    `json:"version"`
	Now     time.Time `json:"now"` // when the status was asked for
	Started time.Time `json:"started"`
}

func (b *base) processStatus() ProcessStatus {
	return ProcessStatus{Role: b.obs.Command(), Version: obs.ReadBuild().String(), Now: time.Now(), Started: b.started}
}

// streamSample returns a sampler of streams and of the channels that they are on.
func streamSample(m *streamMetrics, ping func() time.Duration) func(time.Time) StreamSample {
	return func(at time.Time) StreamSample {
		sum := total(m.table.sums())
		service, client := m.directed(sum)
		return StreamSample{At: at, Streams: sum.active(), BytesToService: service, BytesToClient: client, RTT: ping().Seconds()}
	}
}

// slowestPing returns how long the peer of the slowest of the channels has taken for
// its last answer, 0 while that is unknown.
func slowestPing(sessions []*lasting) (ping time.Duration) {
	for _, s := range sessions {
		ping = max(ping, s.ch.State().Ping)
	}
	return ping
}

func (in *Inlet) inletView() view {
	ping := func() time.Duration { return slowestPing(in.sessions()) }
	return view{"streams", func(most int) any { return in.statusOf(most) }, newHistory(streamSample(in.streams, ping))}
}

func (out *Outlet) outletView() view {
	ping := func() time.Duration { return slowestPing(out.sessions()) }
	return view{"streams", func(most int) any { return out.statusOf(most) }, newHistory(streamSample(out.streams, ping))}
}

func (r *Relay) relayView() view {
	sample := func(at time.Time) JoinSample {
		c := r.server.Counts()
		return JoinSample{At: at, Joins: int64(c.Joins), BytesToTarget: c.ToTarget, BytesToCaller: c.ToCaller}
	}
	return view{"joins", func(most int) any { return r.statusOf(most) }, newHistory(sample)}
}

// sessions returns those of an inlet's channels.
func (in *Inlet) sessions() (all []*lasting) {
	for _, l := range in.allLinks() {
		for _, h := range l.sessions() {
			if s, ok := h.session.(*lasting); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// sessions returns those of an outlet's channels.
func (out *Outlet) sessions() (all []*lasting) {
	for _, ch := range out.channels.list() {
		all = append(all, ch.session)
	}
	return all
}
