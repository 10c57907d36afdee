package app

import (
	"context"
	"sync"
	"time"
)

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
