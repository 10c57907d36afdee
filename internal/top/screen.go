package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/culvert-net/culvert/internal/watch"
)

// headLines is how many lines stand above the rows: the process, its totals, what is
// wrong, the views, the columns' titles.
const headLines = 5

// View draws the screen.
func (m Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// screen returns the lines of the screen, of which there are as many as it has.
func (m *Model) screen() string {
	lines := append(m.head(), m.list()...)
	foot := m.foot()
	for len(lines) < m.height-len(foot) {
		lines = append(lines, "")
	}
	lines = append(lines[:max(min(len(lines), m.height-len(foot)), 0)], foot...)
	for i := range lines {
		lines[i] = watch.Clip(lines[i], m.width)
	}
	return strings.Join(lines[:min(len(lines), max(m.height, 0))], "\n")
}

// room returns how many rows fit.
func (m *Model) room() int { return max(m.height-headLines-len(m.foot()), 0) }

// head returns the lines above the rows.
func (m *Model) head() []string {
	if m.status == nil {
		waiting := "asking " + m.cfg.Address
		return []string{watch.Bold.Paint("culvert top"), waiting, m.trouble(), "", ""}
	}
	s := m.status
	state := watch.Good.Paint("ready")
	if !m.ready.Ready {
		state = watch.Bad.Paint("not ready")
	}
	left := fmt.Sprintf("%s %s  %s", watch.Bold.Paint(string(s.Role)), watch.Short(s.Identifier), state)
	if !s.Started.IsZero() {
		left += "  up " + m.age(s.Started)
	}
	right := s.Now.Local().Format(time.TimeOnly)
	if m.paused {
		right = watch.Invert.Paint(" paused ") + " " + right
	}
	v := m.current()
	shown, widths := watch.Fit(v.columns, m.width)
	return []string{m.apart(left, right), m.totals(), m.trouble(), m.tabs(), watch.Invert.Paint(watch.Pad(watch.Header(v.columns, shown, widths), m.width, false))}
}

// apart puts one text at the left of a line and one at its right.
func (m *Model) apart(left, right string) string {
	gap := m.width - watch.Columns(left) - watch.Columns(right)
	if gap < 1 {
		return left
	}
	return left + strings.Repeat(" ", gap) + right
}

func (m *Model) totals() string {
	t, r := m.status.Totals, m.rates.total
	what, opened := watch.Count(t.StreamsActive, "stream", "streams"), t.StreamsOpened
	if m.status.Role == watch.Relay {
		what, opened = watch.Count(t.JoinsActive, "join", "joins"), t.JoinsOpened
	}
	text := fmt.Sprintf("%s/s there  %s/s back  %s", watch.Bytes(r.there), watch.Bytes(r.back), what)
	if opened > 0 {
		text += fmt.Sprintf(", %d since the start", opened)
	}
	return text
}

// trouble returns the line that says what is wrong, empty if nothing is.
func (m *Model) trouble() string {
	if m.err != nil {
		return watch.Bad.Paint(fmt.Sprintf("not reachable since %s: %s", m.since.Local().Format(time.TimeOnly), oneLine(m.err)))
	}
	if m.ready == nil {
		return ""
	}
	for _, c := range m.ready.Checks {
		if !c.Ready {
			return watch.Bad.Paint(fmt.Sprintf("%s: %s", c.Name, c.Reason))
		}
	}
	return ""
}

// tabs returns the line of the views.
func (m *Model) tabs() string {
	var names []string
	for i, v := range m.views() {
		if i == m.view {
			names = append(names, watch.Bold.Paint("["+v.name+"]"))
		} else {
			names = append(names, watch.Dim.Paint(" "+v.name+" "))
		}
	}
	right := "by " + m.current().sortings[m.sort].name
	if m.turned {
		right += ", reversed"
	}
	if n := len(m.rows()); n > m.room() {
		right = fmt.Sprintf("%d to %d of %d  %s", m.first+1, min(m.first+m.room(), n), n, right)
	}
	if left := max(m.status.StreamsLeftOff, m.status.JoinsLeft); left > 0 && m.view == 0 {
		right = fmt.Sprintf("%d older ones left off  %s", left, right)
	}
	return m.apart(strings.Join(names, ""), watch.Dim.Paint(right))
}

// list returns the rows on the screen.
func (m *Model) list() (lines []string) {
	rows := m.rows()
	if len(rows) == 0 && m.status != nil {
		what := "none"
		if m.filter != "" {
			what = "none with that in it"
		}
		return []string{watch.Dim.Paint(what)}
	}
	columns := m.current().columns
	shown, widths := watch.Fit(columns, m.width)
	first := min(max(m.first, 0), len(rows))
	for _, r := range rows[first:min(first+m.room(), len(rows))] {
		style := r.style
		if m.err != nil {
			style = watch.Dim // as it was
		}
		lines = append(lines, style.Paint(watch.Row(columns, shown, widths, r.cells)))
	}
	return lines
}

// foot returns the lines below the rows: the filter, or the keys.
func (m *Model) foot() []string {
	switch {
	case m.typing:
		return []string{"filter: " + m.filter + watch.Invert.Paint(" ") + watch.Dim.Paint("  enter keeps it, esc drops it")}
	case m.filter != "":
		return []string{"filter: " + m.filter + watch.Dim.Paint("  / changes it, esc drops it")}
	case m.help:
		return fullHelp(m.width)
	}
	return []string{shortHelp()}
}
