package node

import (
	"errors"
	"sync"
)

// A stream is the body of a large message on its way through a node to a third one. It
// goes on in pieces as it comes: the node holds of it what the flow has credit for, and
// no more. So what is for another node never waits in this one's budget for room in
// that one's, which would wait for this one's.
type stream struct {
	in    *inflow
	a     *arrival
	total int // bytes of the body

	mu    sync.Mutex
	held  [][]byte // has come and not gone on
	over  error    // why no more comes
	moved chan struct{}
}

// errGivenUp says that the rest of a message does not come.
var errGivenUp = errors.New("the sender has given the message up in the middle")

func newStream(in *inflow, a *arrival) *stream {
	return &stream{in: in, a: a, total: a.total, moved: make(chan struct{})}
}

// putTogether is up to how many bytes small pieces are held as one: who sends many of them
// takes no more room than the credit that they take.
const putTogether = 4 << 10

// put adds b, which is the stream's then.
func (s *stream) put(b []byte) {
	if len(b) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch k := len(s.held) - 1; {
	case s.over != nil:
		return
	case k >= 0 && len(s.held[k])+len(b) <= putTogether:
		s.held[k] = append(s.held[k], b...) // who has next's bytes sees none of these
	default:
		s.held = append(s.held, b)
	}
	s.signalLocked()
}

// fail says that no more comes.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over, s.held = err, nil
		s.signalLocked()
	}
}

func (s *stream) signalLocked() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// next returns what has come and not gone on, or what to wait for until more has.
func (s *stream) next() (b []byte, moved <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return nil, nil, s.over
	}
	if len(s.held) > 0 {
		b = s.held[0]
	}
	return b, s.moved, nil
}

// gone takes the first n bytes away, for which more may come.
func (s *stream) gone(n int) {
	s.take(n)
	s.in.passedOn(s.a, n)
}

func (s *stream) take(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == 0 || len(s.held) == 0 { // it has failed meanwhile
		return
	}
	if s.held[0] = s.held[0][n:]; len(s.held[0]) == 0 {
		s.held[0] = nil
		s.held = s.held[1:]
	}
}
