package channel

import (
	"fmt"
	"io"
)

// The types that hold keys print without them under every verb: fmt follows
// pointers into unexported fields when a verb does not fit.

// Format prints the process's identifier and instance.
func (l *Local) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "local(%s, instance %s, keys redacted)", l.Identifier(), l.instance)
}

// Format prints the conn's peer.
func (c *Conn) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "conn(%s with %s, keys redacted)", c.purpose, c.peer.Identifier)
}

// Format prints who asks.
func (in *Incoming) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "incoming(")
	in.conn.Format(s, 'v')
	_, _ = io.WriteString(s, ")")
}
