// Package trace owns the spans of proxied connections: whether one is recorded, what
// of it is carried to the other end, and how it gets to a collector, by OTLP over
// HTTP with protobuf (OTLP 1.x, opentelemetry.io/docs/specs/otlp), in the protocol's own
// messages. What is recorded is bounded: by a share that is sampled, by a rate, and by a
// queue that drops what a collector does not take. Nobody who records ever waits.
//
// It does without OpenTelemetry's SDK (docs/decisions/008-otlp-without-sdk.md). It knows
// nothing of streams and channels, and does not log.
package trace

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"golang.org/x/time/rate"
)

// scope names who makes the spans.
const scope = "github.com/culvert-net/culvert"

// What a span may hold: streams can last for weeks, and their paths change.
const (
	maxEvents     = 64
	maxAttributes = 32
	maxText       = 256 // bytes of one attribute's value
)

// DefaultSpansPerSecond is [Config].SpansPerSecond's default.
const DefaultSpansPerSecond = 100

// A Config says what to record, and where it goes.
type Config struct {
	// Service is what the spans' resource is called (service.name) where
	// OTEL_SERVICE_NAME does not say otherwise.
	Service    string
	Identifier string // of this process, as others know it
	Instance   string // of this process, drawn at its start
	Name       string // the process's name; "": it has none

	Endpoint string            // the collector's URL for traces, whole
	Headers  map[string]string // sent with each request; never logged
	CAFile   string            // who may vouch for the collector, PEM; "": whom the system trusts

	// Sample is which share of the traces that begin here is recorded, 0 to 1.
	Sample float64
	// SpansPerSecond bounds how many traces that begin here are recorded, and as many
	// again of those that peers ask for, whatever Sample and the peers say. A burst of
	// one second's worth is allowed. 0: DefaultSpansPerSecond.
	SpansPerSecond int

	// Flush returns how long Run tries at most to send what is left, from the time on
	// that the process is told to stop, which is when it is called; nil: no longer than
	// it has to.
	Flush func() time.Duration

	// Failed is told when the collector begins to take nothing, or refuses something,
	// and Recovered when it takes spans again, with how many were lost. They are called
	// by Run, one at a time; nil: nobody is told.
	Failed    func(err error)
	Recovered func(lost uint64)
}

// A Tracer records spans and sends them. The nil Tracer records none. It is made by
// [New] and its spans are sent by [Tracer.Run].
type Tracer struct {
	cfg      Config
	resource *resource.Resource
	queue    *queue
	client   *client
	sampler  *sampler

	exported, failed, rejected atomic.Uint64

	failing atomic.Bool // the collector took nothing last, or not all; written by Run
	lost    uint64      // of Run: spans since then

	mu      sync.Mutex
	watched map[Channel]map[*Span]struct{}
}

// New checks the settings and reads the file of certificate authorities. It starts
// nothing.
func New(cfg Config) (*Tracer, error) {
	if cfg.SpansPerSecond == 0 {
		cfg.SpansPerSecond = DefaultSpansPerSecond
	}
	t := &Tracer{cfg: cfg, queue: newQueue(), watched: map[Channel]map[*Span]struct{}{}, sampler: newSampler(cfg.Sample, cfg.SpansPerSecond)}
	var err error
	if t.client, err = newClient(&cfg, func(err error) { t.fails(err, 0) }); err != nil {
		return nil, err
	}
	if t.resource, err = newResource(&cfg); err != nil {
		return nil, err
	}
	return t, nil
}

// Stats count spans since the start.
type Stats struct {
	Exported uint64 // the collector has taken them
	Failed   uint64 // it could not be reached, or did not take the request
	Rejected uint64 // it took the request and not these
	Dropped  uint64 // there was no room in the queue
	Limited  uint64 // not recorded, since they were more than SpansPerSecond
}

// Stats returns what has become of the spans so far.
func (t *Tracer) Stats() Stats {
	return Stats{
		Exported: t.exported.Load(), Failed: t.failed.Load(), Rejected: t.rejected.Load(),
		Dropped: t.queue.dropped.Load(), Limited: t.sampler.limited.Load(),
	}
}

// A sampler decides which spans are recorded.
type sampler struct {
	all        bool
	below      uint64 // of 63 bits of a trace's id, those that are recorded
	own, asked *rate.Limiter
	limited    atomic.Uint64
}

func newSampler(share float64, perSecond int) *sampler {
	return &sampler{
		all: share >= 1, below: uint64(min(max(share, 0), 1) * (1 << 63)),
		own: rate.NewLimiter(rate.Limit(perSecond), perSecond), asked: rate.NewLimiter(rate.Limit(perSecond), perSecond),
	}
}

// begins reports whether a trace that begins here is recorded. It goes by the id, as
// OpenTelemetry's TraceIdRatioBased does: who else samples so takes the same ones.
func (s *sampler) begins(trace [16]byte) bool {
	return (s.all || binary.BigEndian.Uint64(trace[8:])>>1 < s.below) && s.allow(s.own)
}

// follows reports whether what a peer's span is the parent of is recorded. A peer can
// ask for that, which is granted as far as the rate goes, and can ask not to. The two
// rates are apart, so that what peers ask for takes nothing from what begins here.
func (s *sampler) follows(parent Context) bool { return parent.Sampled && s.allow(s.asked) }

func (s *sampler) allow(l *rate.Limiter) bool {
	if l.Allow() {
		return true
	}
	s.limited.Add(1)
	return false
}

// draw fills an id, of which zeros alone are none, so that nobody can guess it.
func draw(id []byte) {
	for zero := true; zero; {
		_, _ = rand.Read(id) // never fails
		for _, b := range id {
			zero = zero && b == 0
		}
	}
}
