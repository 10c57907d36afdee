package top

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/culvert-net/culvert/internal/watch"
)

// A binding is what one key does, or each of several.
type binding struct {
	keys       []string // as [tea.KeyPressMsg] calls them
	name, what string   // for people
}

func (b binding) matches(k tea.KeyPressMsg) bool { return slices.Contains(b.keys, k.String()) }

// Keys are all that do something; they are never written.
var keys = struct {
	quit, view, sort, turn, filter, clear, pause, help binding
	up, down, pageUp, pageDown, home, end              binding
}{
	quit:     binding{[]string{"q", "ctrl+c"}, "q", "quit"},
	view:     binding{[]string{"tab"}, "tab", "next view"},
	sort:     binding{[]string{"s"}, "s", "sort"},
	turn:     binding{[]string{"r"}, "r", "reverse"},
	filter:   binding{[]string{"/"}, "/", "filter"},
	clear:    binding{[]string{"esc"}, "esc", "no filter"},
	pause:    binding{[]string{"p", "space"}, "p", "pause"},
	help:     binding{[]string{"?"}, "?", "help"},
	up:       binding{[]string{"up", "k"}, "up", "one up"},
	down:     binding{[]string{"down", "j"}, "down", "one down"},
	pageUp:   binding{[]string{"pgup", "ctrl+b"}, "pgup", "page up"},
	pageDown: binding{[]string{"pgdown", "ctrl+f"}, "pgdn", "page down"},
	home:     binding{[]string{"home", "g"}, "home", "first"},
	end:      binding{[]string{"end", "G"}, "end", "last"},
}

// shortHelp is the line of the keys that are used most.
func shortHelp() string {
	var parts []string
	for _, b := range []binding{keys.quit, keys.view, keys.sort, keys.turn, keys.filter, keys.pause, keys.help} {
		parts = append(parts, b.name+" "+watch.Dim.Paint(b.what))
	}
	return strings.Join(parts, "  ")
}

// fullHelp are the lines of all keys, in as many columns as fit.
func fullHelp(width int) (lines []string) {
	const name, column = 5, 20
	all := []binding{
		keys.quit, keys.view, keys.sort, keys.turn, keys.filter, keys.clear, keys.pause,
		keys.help, keys.up, keys.down, keys.pageUp, keys.pageDown, keys.home, keys.end,
	}
	for row := range slices.Chunk(all, max(width/column, 1)) {
		line := ""
		for _, b := range row {
			line += watch.Pad(b.name, name, false) + watch.Dim.Paint(watch.Pad(b.what, column-name, false))
		}
		lines = append(lines, line)
	}
	return lines
}
