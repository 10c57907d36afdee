// Package top owns the live view of a running process in a terminal: its keys, its
// screen, and what it works out of two answers, which are rates. What it asks and how
// it puts values into words is package watch's.
package top

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/culvert-net/culvert/internal/watch"
)

// A Config says what a [Model] shows. Ask is required.
type Config struct {
	// Ask returns what the process is doing now. It is called by one goroutine at a
	// time, and its context ends with Context.
	Ask      func(ctx context.Context) (*watch.Status, *watch.Readiness, error)
	Context  context.Context //nolint:containedctx // the program's, which the messages of a Model cannot carry
	Interval time.Duration   // between two questions; 0 means 1 s
	Address  string          // where the process is asked, for people
}

// A Model is the state of the view; it is a [tea.Model], and a value.
type Model struct {
	cfg Config

	width, height int // of the screen; 0: not known yet

	status *watch.Status // the last answer; nil: there was none
	ready  *watch.Readiness
	rates  rates
	// Why there is no newer answer, and since when; nil: there is one.
	err   error
	since time.Time

	view   int // of the role's views
	sort   int // of the view's sortings
	turned bool
	first  int // the first row on the screen
	filter string
	typing bool // the filter
	paused bool
	help   bool // all keys are shown
}

// An answer is what a question has come to.
type answer struct {
	status *watch.Status
	ready  *watch.Readiness
	err    error
	at     time.Time
}

// A due says that it is time for the next question.
type due struct{}

// New returns a Model that has asked nothing yet.
func New(cfg Config) Model {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.Context == nil {
		cfg.Context = context.Background()
	}
	return Model{cfg: cfg, width: 80, height: 24}
}

// Init asks for the first time.
func (m Model) Init() tea.Cmd { return m.ask }

// ask is the command that asks the process.
func (m Model) ask() tea.Msg {
	s, ready, err := m.cfg.Ask(m.cfg.Context)
	return answer{s, ready, err, time.Now()}
}

// Update takes a message in.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case answer:
		m.take(msg)
		return m.bounded(), tea.Tick(m.cfg.Interval, func(time.Time) tea.Msg { return due{} })
	case due:
		return m, m.ask
	case tea.KeyPressMsg:
		return m.press(msg)
	}
	return m.bounded(), nil
}

// take takes an answer in. A view that is paused stays as it is.
func (m *Model) take(a answer) {
	switch {
	case a.err != nil && m.err == nil:
		m.err, m.since = a.err, a.at
	case a.err != nil:
		m.err = a.err
	case m.paused:
		m.err = nil
	default:
		m.err = nil
		m.rates = m.rates.next(m.status, a.status)
		if m.status == nil || m.status.Role != a.status.Role {
			m.view, m.sort, m.first = 0, 0, 0
		}
		m.status, m.ready = a.status, a.ready
	}
}

// bounded keeps the first row where there are rows.
func (m Model) bounded() Model {
	m.first = max(0, min(m.first, len(m.rows())-m.room()))
	return m
}

// press takes a key in.
func (m Model) press(k tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	if m.typing {
		return m.typed(k).bounded(), nil
	}
	page := max(m.room()-1, 1)
	switch {
	case keys.quit.matches(k):
		return m, tea.Quit
	case keys.view.matches(k):
		m.view = (m.view + 1) % len(m.views())
		m.sort, m.first = 0, 0
	case keys.sort.matches(k):
		m.sort = (m.sort + 1) % len(m.current().sortings)
		m.first = 0
	case keys.turn.matches(k):
		m.turned = !m.turned
	case keys.filter.matches(k):
		m.typing = true
	case keys.clear.matches(k):
		m.filter = ""
	case keys.pause.matches(k):
		m.paused = !m.paused
	case keys.help.matches(k):
		m.help = !m.help
	case keys.up.matches(k):
		m.first--
	case keys.down.matches(k):
		m.first++
	case keys.pageUp.matches(k):
		m.first -= page
	case keys.pageDown.matches(k):
		m.first += page
	case keys.home.matches(k):
		m.first = 0
	case keys.end.matches(k):
		m.first = len(m.rows())
	}
	return m.bounded(), nil
}

// maxFilter bounds the filter, in characters.
const maxFilter = 64

// typed takes a key of the filter in.
func (m Model) typed(k tea.KeyPressMsg) Model {
	text := []rune(m.filter)
	switch k.String() {
	case "enter":
		m.typing = false
	case "esc", "ctrl+c":
		m.typing, text = false, nil
	case "backspace":
		text = text[:max(len(text)-1, 0)]
	case "ctrl+u":
		text = nil
	default:
		text = append(text, []rune(k.Text)...)
	}
	m.filter = string(text[:min(len(text), maxFilter)])
	m.first = 0
	return m
}
