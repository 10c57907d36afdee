package webhook

import (
	"context"
	"errors"
	"net/url"
	"time"
)

// Bounds of what is in hand at once. Together they are the webhook's memory, whatever
// somebody sends: a large review is held once (maxReading × maxReview, 32 MiB), one that is
// decided about becomes maps and their copies (maxDeciding × some 60 MiB at worst, see
// maxValues), and of the others there are headers, what was read, and what HTTP/2 has
// received and nobody has read (maxWaiting × (maxHeader + smallReview + streamBuffer),
// 50 MiB).
const (
	maxWaiting  = 512 // requests, those included that are read and decided about
	maxReading  = 16  // reviews beyond smallReview, from there to their answer
	maxDeciding = 2   // reviews that are decoded: it is processor work, and some milliseconds for a usual pod

	// smallReview is what a review may have without a place for reading, in bytes: most
	// pods have less.
	smallReview = 32 << 10

	// maxPatience is how long a review may wait for all that: no API server waits for
	// longer (timeoutSeconds of a webhook is 30 at most, and 10 in our manifests).
	maxPatience = 10 * time.Second

	// lastMoment is by how much earlier than the end of its time an API server may hang up
	// because that is over for it: it says its time in whole seconds, rounded up, and began
	// to count before its review was here.
	lastMoment = 2 * time.Second
)

var (
	// errBusy is the answer to a review for which there was no place in its time.
	errBusy = errors.New("too many reviews at once: try again; where it stays so, more replicas of the webhook help")
	// errGone is about a review whose caller has hung up early: whoever wanted it answered
	// has given up.
	errGone = errors.New("the caller has hung up while its review waited")
)

// A gate holds the places of requests. Those who wait for one get it in the order in
// which they came.
type gate struct {
	waiting, reading, deciding chan struct{}
}

func newGate() *gate {
	return &gate{
		waiting: make(chan struct{}, maxWaiting), reading: make(chan struct{}, maxReading), deciding: make(chan struct{}, maxDeciding),
	}
}

// admit takes a place among those that wait, at once or not at all.
func (g *gate) admit() error {
	select {
	case g.waiting <- struct{}{}:
		return nil
	default:
		return errBusy
	}
}

// enter takes a place, unless ctx ends before there is one: by its deadline, or because the
// caller has hung up, in the last moment before it because the deadline is over for it. A
// channel serves those who wait to send in their order.
func enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	deadline, bound := ctx.Deadline()
	if errors.Is(ctx.Err(), context.Canceled) && (!bound || time.Until(deadline) > lastMoment) {
		return errGone
	}
	return errBusy
}

// leave gives a place back.
func leave(places chan struct{}) { <-places }

// patience returns how long an API server waits for the answer, which it says in the
// parameter timeout; at most maxPatience.
func patience(parameters url.Values) time.Duration {
	d, err := time.ParseDuration(parameters.Get("timeout"))
	if err != nil || d <= 0 || d > maxPatience {
		return maxPatience
	}
	return d
}
