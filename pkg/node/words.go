package node

import (
	"context"
	"sync"
	"time"
)

// Bounds of the words of losses that wait for room on their way back: of all, of those that
// go on by conns of whom nobody knows, together, and of those that go on by one conn, or to
// one worker.
const (
	maxWords      = 4096
	maxWordsConns = maxWords / 2
	maxWordsPlace = maxWords / 4
)

// words are those that wait, in a line for each way back: one that stalls holds up no other.
// The zero words has none.
type words struct {
	mu    sync.Mutex
	all   int
	conns int                   // of all, those that go on by conns of whom nobody knows
	goTo  map[wordPlace]int     // how many of them
	lines map[string]*wordsLine // a goroutine for each
}

// A wordPlace is where words go on to from here.
type wordPlace struct {
	at   Address
	conn bool // of whom nobody knows, who may have as many conns as they like
}

// A wordsLine has words that are told one after the other.
type wordsLine struct {
	to    wordPlace
	words []*Message
}

// wordPlace returns where word goes on to, behind this node's hops; false: nowhere.
func (n *Node) wordPlace(word *Message) (_ wordPlace, ok bool) {
	switch p, _, err := n.resolve(word); p := p.(type) {
	case *link:
		return wordPlace{p.address, p.from.Load().Peer == nil}, err == nil
	case *worker:
		return wordPlace{p.address, false}, err == nil
	default:
		return wordPlace{}, false
	}
}

// later tells word, which has not found room at once, when there is some. Who sends much
// and reads nothing is told of what there is room for: when a line has not moved for
// lastWords, all of it is given up.
func (w *words) later(n *Node, word *Message) {
	to, ok := n.wordPlace(word)
	if !ok {
		return
	}
	way := word.Onward.String()
	w.mu.Lock()
	line, runs := w.lines[way]
	if !runs {
		line = &wordsLine{to: to}
	}
	if !w.takeLocked(line.to) {
		w.mu.Unlock()
		return
	}
	if w.lines == nil {
		w.lines = map[string]*wordsLine{}
	}
	w.lines[way] = line
	line.words = append(line.words, word)
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
	if line == nil || len(line.words) == 0 {
		delete(w.lines, way)
		return nil
	}
	word := line.words[0]
	line.words[0] = nil
	line.words = line.words[1:]
	w.giveLocked(line.to, 1)
	return word
}

// giveUp ends a line.
func (w *words) giveUp(way string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if line := w.lines[way]; line != nil {
		w.giveLocked(line.to, len(line.words))
	}
	delete(w.lines, way)
}

func (w *words) takeLocked(to wordPlace) bool {
	if w.all >= maxWords || w.goTo[to] >= maxWordsPlace || to.conn && w.conns >= maxWordsConns {
		return false
	}
	if w.goTo == nil {
		w.goTo = map[wordPlace]int{}
	}
	w.all++
	w.goTo[to]++
	if to.conn {
		w.conns++
	}
	return true
}

func (w *words) giveLocked(to wordPlace, count int) {
	w.all -= count
	if to.conn {
		w.conns -= count
	}
	if w.goTo[to] -= count; w.goTo[to] == 0 {
		delete(w.goTo, to)
	}
}
