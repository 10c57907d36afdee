package watch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Column is one of a table.
type Column struct {
	Title string
	Width int  // columns of the terminal, at least
	Grows bool // takes what is left of a line
	Right bool // numbers stand to the right
	// Drop says which columns go first where a line has too little room: the highest
	// number first; 0 stays.
	Drop int
}

// Fit returns which columns fit into a line, and how wide they are.
func Fit(columns []Column, width int) (shown, widths []int) {
	for i := range columns {
		shown = append(shown, i)
	}
	for {
		sum, worst := 0, -1
		for at, i := range shown {
			sum += columns[i].Width + 1
			if d := columns[i].Drop; d > 0 && (worst < 0 || d > columns[shown[worst]].Drop) {
				worst = at
			}
		}
		if sum-1 <= width || worst < 0 {
			return shown, grow(columns, shown, width-(sum-1))
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
}

// grow shares what is left of a line among the columns that can use it.
func grow(columns []Column, shown []int, left int) (widths []int) {
	growing := 0
	for _, i := range shown {
		if columns[i].Grows {
			growing++
		}
	}
	for _, i := range shown {
		w := columns[i].Width
		if columns[i].Grows && left > 0 {
			more := left / growing
			w, left, growing = w+more, left-more, growing-1
		}
		widths = append(widths, w)
	}
	return widths
}

// Row returns one line of a table.
func Row(columns []Column, shown, widths []int, cells []string) string {
	parts := make([]string, len(shown))
	for at, i := range shown {
		parts[at] = Pad(cells[i], widths[at], columns[i].Right)
	}
	return strings.TrimRight(strings.Join(parts, " "), " ")
}

// Header returns the line above a table.
func Header(columns []Column, shown, widths []int) string {
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.Title
	}
	return Row(columns, shown, widths, titles)
}

// streamColumns are those of the streams, and joinColumns those of joins; they are
// never written.
var (
	streamColumns = []Column{
		{Title: "SERVICE", Width: 10, Grows: true},
		{Title: "PEER", Width: 11, Drop: 2},
		{Title: "CLIENT", Width: 15, Grows: true, Drop: 1},
		{Title: "AGE", Width: 7, Right: true, Drop: 3},
		{Title: "TO SERVICE", Width: 10, Right: true},
		{Title: "BACK", Width: 8, Right: true},
	}
	joinColumns = []Column{
		{Title: "REQUEST", Width: 7, Drop: 3},
		{Title: "CALLER", Width: 11},
		{Title: "TARGET", Width: 11, Grows: true},
		{Title: "AGE", Width: 7, Right: true, Drop: 2},
		{Title: "TO TARGET", Width: 9, Right: true},
		{Title: "BACK", Width: 8, Right: true, Drop: 1},
	}
)

// PeerOf returns what the other end of a stream is called: its name, or else its
// identifier.
func PeerOf(s *Stream) string {
	if s.PeerName != "" {
		return string(s.PeerName)
	}
	return Short(s.Peer)
}

func (p *printer) streams() {
	table(p, "streams", streamColumns, p.s.Streams, p.s.StreamsLeftOff,
		func(s *Stream) int64 { return s.ToService + s.ToClient },
		func(s *Stream) []string {
			return []string{string(s.Service), PeerOf(s), string(s.Client), Age(s.Since, p.s.Now), Bytes(s.ToService), Bytes(s.ToClient)}
		})
}

func (p *printer) joins() {
	table(p, "joins", joinColumns, p.s.Joins, p.s.JoinsLeft,
		func(j *Join) int64 { return j.ToTarget + j.ToCaller },
		func(j *Join) []string {
			return []string{string(j.Request), Short(j.Caller), Short(j.Target), Age(j.Since, p.s.Now), Bytes(j.ToTarget), Bytes(j.ToCaller)}
		})
}

// table prints the section of that name: all of it sorted by how much each has moved, as
// far as the options want it.
func table[T any](p *printer, name string, columns []Column, of []T, leftOff int, moved func(*T) int64, cells func(*T) []string) {
	all := slices.Clone(of)
	if !p.title(name, len(all)) {
		return
	}
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(moved(&b), moved(&a)) })
	shown, widths := Fit(columns, p.opt.Width-2)
	p.printf("  %s\n", Dim.Paint(Header(columns, shown, widths)))
	for i := range all[:min(len(all), max(p.opt.Streams, 0))] {
		p.printf("  %s\n", Row(columns, shown, widths, cells(&all[i])))
	}
	p.more(len(all), leftOff)
}

// more says how many lines of a table are not shown.
func (p *printer) more(there, leftOff int) {
	if n := max(there-max(p.opt.Streams, 0), 0) + max(leftOff, 0); n > 0 {
		p.line(2, Dim, fmt.Sprintf("and %d more", n))
	}
}
