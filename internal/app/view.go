package app

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync"
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

const (
	// sampleEvery is how far samples are apart, and samplesKept how many there are:
	// those of half an hour.
	sampleEvery = 5 * time.Second
	samplesKept = 360
)

// A history has the last samples of a process, which one timer takes.
type history[T any] struct {
	sample func(at time.Time) T

	mu   sync.Mutex
	ring []T
	next int // where the next one goes, once the ring is full
}

// HistoryStatus is what /status/history shows.
type HistoryStatus[T any] struct {
	Interval float64 `json:"interval_seconds"`
	Samples  []T     `json:"samples"` // oldest first
}

// A StreamSample is one of an inlet's or outlet's: how many streams there were, what
// all streams together had carried since the start, and how long the peer of the
// slowest channel had taken for its last answer, 0 while that is unknown.
type StreamSample struct {
	At             time.Time `json:"at"`
	Streams        int64     `json:"streams"`
	BytesToService int64     `json:"bytes_to_service"`
	BytesToClient  int64     `json:"bytes_to_client"`
	RTT            float64   `json:"rtt_seconds"`
}

// A JoinSample is one of a relay's.
type JoinSample struct {
	At            time.Time `json:"at"`
	Joins         int64     `json:"joins"`
	BytesToTarget int64     `json:"bytes_to_target"`
	BytesToCaller int64     `json:"bytes_to_caller"`
}

func newHistory[T any](sample func(at time.Time) T) *history[T] { return &history[T]{sample: sample} }

// run takes samples until ctx ends, the first one at once.
func (h *history[T]) run(ctx context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		h.take()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (h *history[T]) take() {
	s := h.sample(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < samplesKept {
		h.ring = append(h.ring, s)
		return
	}
	h.ring[h.next] = s
	h.next = (h.next + 1) % samplesKept
}

// show returns all samples.
func (h *history[T]) show() any {
	h.mu.Lock()
	defer h.mu.Unlock()
	samples := make([]T, 0, len(h.ring))
	return HistoryStatus[T]{Interval: sampleEvery.Seconds(), Samples: append(append(samples, h.ring[h.next:]...), h.ring[:h.next]...)}
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

// TotalsStatus are the numbers of all streams since the process has started. They
// move while streams run.
type TotalsStatus struct {
	StreamsActive  int64 `json:"streams_active"`
	StreamsOpened  int64 `json:"streams_opened"`
	BytesToService int64 `json:"bytes_to_service"`
	BytesToClient  int64 `json:"bytes_to_client"`
}

func (m *streamMetrics) totals(s streamSums) TotalsStatus {
	t := TotalsStatus{StreamsActive: s.active(), StreamsOpened: s.opened}
	t.BytesToService, t.BytesToClient = m.directed(s)
	return t
}

// carried returns the numbers of a service.
func (m *streamMetrics) carried(s streamSums) CarriedStatus {
	c := CarriedStatus{StreamsOpened: s.opened}
	c.BytesToService, c.BytesToClient = m.directed(s)
	return c
}

// A StreamStatus is a stream that lives.
type StreamStatus struct {
	ID             string    `json:"id"` // no other stream of the process has or had it
	Service        string    `json:"service"`
	Peer           string    `json:"peer"` // "" while the inlet looks for one
	PeerName       string    `json:"peer_name,omitempty"`
	Client         string    `json:"client"`  // its address; at an outlet the inlet's claim
	Channel        string    `json:"channel"` // "" while the inlet waits for one
	Since          time.Time `json:"since"`
	BytesToService int64     `json:"bytes_to_service"`
	BytesToClient  int64     `json:"bytes_to_client"`
	Active         time.Time `json:"active"` // when the last byte came or went
}

// StreamsStatus are the streams that live, the newest first, and how many more there
// are.
type StreamsStatus struct {
	Streams []StreamStatus `json:"streams"`
	LeftOff int64          `json:"streams_left_off"`
}

// newest returns the newest streams of active ones, at most so many.
func (m *streamMetrics) newest(most int, active int64) StreamsStatus {
	list := m.table.newest(most)
	st := StreamsStatus{Streams: make([]StreamStatus, 0, len(list)), LeftOff: max(0, active-int64(len(list)))}
	for i := range list {
		s := &list[i]
		v := StreamStatus{ID: strconv.FormatUint(s.number, 10), Service: s.service, PeerName: s.peerName, Client: s.client, Since: s.since, Active: s.Active}
		if !s.peer.IsZero() {
			v.Peer = s.peer.String()
		}
		if s.carried {
			v.Channel = s.channel.String()
		}
		v.BytesToService, v.BytesToClient = m.directed(streamSums{sent: s.Sent, received: s.Received})
		st.Streams = append(st.Streams, v)
	}
	return st
}

// JoinsStatus are the numbers of all joins since the relay has started. They move
// while joins last.
type JoinsStatus struct {
	JoinsActive   int64 `json:"joins_active"`
	JoinsOpened   int64 `json:"joins_opened"`
	BytesToTarget int64 `json:"bytes_to_target"`
	BytesToCaller int64 `json:"bytes_to_caller"`
}
