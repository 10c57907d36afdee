package node

import (
	"context"
	"sync"
	"time"
)

// Bounds of the words of losses that wait for room on their way back: of all, and of those
// that go on by one conn, or to one worker.
const (
	maxWords      = 4096
	maxWordsPlace = maxWords / 4
)

// words are those that wait, in a line for each way back: one that stalls holds up no other.
// The zero words has none.
type words struct {
	mu    sync.Mutex
	all   int
	goTo  map[Address]int       // how many of them, by the place that they go on to from here
	lines map[string][]*Message // of those that are told one after the other; a goroutine for each
}

// later tells word, which has not found room at once, when there is some. Who sends much
// and reads nothing is told of what there is room for: when a line has not moved for
// lastWords, all of it is given up.
func (w *words) later(n *Node, word *Message) {
	way := word.Onward.String()
	w.mu.Lock()
	line, runs := w.lines[way]
	if !w.takeLocked(word.Onward[0]) {
		w.mu.Unlock()
		return
	}
	if w.lines == nil {
		w.lines = map[string][]*Message{}
	}
	w.lines[way] = append(line, word)
	w.mu.Unlock()
	if !runs && !n.run(func() { w.tell(n, way) }) {
		w.giveUp(way)
	}
}

// tell tells a line of words.
func (w *words) tell(n *Node, way string) {
	for word := w.next(way); word != nil; word = w.next(way) {
		s := n.spell()
		told := s.deliver(word)
		s.end()
		if !told {
			w.giveUp(way)
			return
		}
	}
}

// A spell is how long words may wait for room, together: lastWords. It begins anew when this
// process has stood still, as on a machine that has too much to do: there may be room, and
// what says so is not read yet.
type spell struct {
	node  *Node
	ctx   context.Context
	end   context.CancelFunc
	began time.Time
	over  bool
}

// spell begins one, which is to be ended.
func (n *Node) spell() *spell {
	s := &spell{node: n}
	s.begin()
	return s
}

func (s *spell) begin() {
	s.began = time.Now()
	s.ctx, s.end = context.WithTimeout(s.node.ctx, lastWords)
}

// deliver brings word on its way, or drops it where that leads nowhere. False: the spell is
// over, and there was no room for word.
func (s *spell) deliver(word *Message) bool {
	for {
		_, err := s.node.deliver(s.ctx, word, nil, true)
		if err == nil || s.ctx.Err() == nil {
			return true
		}
		if s.over || s.node.ctx.Err() != nil || time.Since(s.began) <= lastWords+lookAgain {
			s.over = true
			return false
		}
		s.end()
		s.begin()
	}
}

// next takes the first word of a line, or ends it where there is none.
func (w *words) next(way string) *Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.lines[way]
	if len(line) == 0 {
		delete(w.lines, way)
		return nil
	}
	word := line[0]
	line[0] = nil
	w.lines[way] = line[1:]
	w.giveLocked(word.Onward[0], 1)
	return word
}

// giveUp ends a line.
func (w *words) giveUp(way string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if line := w.lines[way]; len(line) > 0 {
		w.giveLocked(line[0].Onward[0], len(line))
	}
	delete(w.lines, way)
}

func (w *words) takeLocked(to Address) bool {
	if w.all >= maxWords || w.goTo[to] >= maxWordsPlace {
		return false
	}
	if w.goTo == nil {
		w.goTo = map[Address]int{}
	}
	w.all++
	w.goTo[to]++
	return true
}

func (w *words) giveLocked(to Address, count int) {
	w.all -= count
	if w.goTo[to] -= count; w.goTo[to] == 0 {
		delete(w.goTo, to)
	}
}
