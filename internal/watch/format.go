package watch

import (
	"fmt"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/route"
)

// Short returns the beginning of an identifier, by which people tell it from others.
func Short(id Text) string {
	const enough = 10
	s := string(id)
	if Columns(s) <= enough+1 {
		return s
	}
	return truncate(s, enough+1, "…")
}

// Hops returns a route without its identifiers.
func Hops(text Text) string {
	r, err := route.Parse(string(text))
	if err != nil {
		return string(text)
	}
	hops := make([]string, len(r))
	for i, h := range r {
		hops[i] = h.Address()
	}
	return strings.Join(hops, " > ")
}

// Why returns the reason in the error of a route, without the hop's URL, which is long
// and stands beside it, and without the hop where there is only one.
func Why(text Text) string {
	at, reason, ok := strings.Cut(string(text), "): ")
	hop, _, named := strings.Cut(at, " (")
	if !ok || !named || !strings.HasPrefix(hop, "hop ") {
		return string(text)
	}
	if hop == "hop 1 of 1" {
		return reason
	}
	return hop + ": " + reason
}

// Bytes prints a number of bytes with four characters of digits at most.
func Bytes[N int64 | float64](n N) string {
	const unit = 1024
	f := max(float64(n), 0)
	if f < unit {
		return fmt.Sprintf("%.0f B", f)
	}
	i := -1
	for f >= unit-0.5 && i < len("KMGTPE")-1 { // which would be printed as 1024
		f /= unit
		i++
	}
	if f < 10 {
		return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[i])
	}
	return fmt.Sprintf("%.0f %ciB", f, "KMGTPE"[i])
}

// Age prints how long ago something was, in two units at most; "" for a time that is
// not known.
func Age(since, now time.Time) string {
	if since.IsZero() {
		return ""
	}
	return Long(now.Sub(since))
}

// Long prints a time of seconds to years, in two units at most.
func Long(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

// Brief prints a time of microseconds to seconds; "" for none.
func Brief(seconds float64) string {
	switch {
	case seconds <= 0:
		return ""
	case seconds >= 1:
		return fmt.Sprintf("%.1f s", seconds)
	case seconds >= 0.01:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.1f ms", seconds*1e3)
}

// Count prints how many there are of something.
func Count[N int | int64 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Wrap breaks text into lines of at most width columns: between words, or in those that
// are longer than a line.
func Wrap(text string, width int) (lines []string) {
	width = max(width, 1)
	line, n := "", 0
	for i, word := range strings.Split(text, " ") {
		w := Columns(word)
		switch {
		case i == 0:
			line, n = word, w
		case n+1+w <= width:
			line, n = line+" "+word, n+1+w
		default:
			lines = append(lines, hardWrap(line, width)...)
			line, n = word, w
		}
	}
	return append(lines, hardWrap(line, width)...)
}

// Clip cuts text off at width columns, and shows that it did.
func Clip(text string, width int) string {
	if width <= 0 {
		return ""
	}
	return truncate(text, width, "…")
}

// Pad clips text and fills it up to width columns; to the left of it where right is
// set.
func Pad(text string, width int, right bool) string {
	text = Clip(text, width)
	fill := strings.Repeat(" ", max(width-Columns(text), 0))
	if right {
		return fill + text
	}
	return text + fill
}

// A Style is how a piece of text looks. Terminals that show no colours show none.
type Style string

// The styles, as the parameters of SGR (ECMA-48, 8.3.117): colours are the terminal's
// own, which its user can read.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Invert Style = "7"
	Good   Style = "32"
	Warn   Style = "33"
	Bad    Style = "31"
)

// Paint returns text in a style.
func (s Style) Paint(text string) string {
	if s == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[m"
}

// StateStyle is how the state of a route, a replica or a channel looks.
func StateStyle(state Text) Style {
	switch state {
	case "in_use", "open":
		return Good
	case "failed":
		return Bad
	case "resuming", "connecting", "aside", "finishing":
		return Warn
	}
	return Dim
}
