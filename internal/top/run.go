package top

import (
	"context"
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/culvert-net/culvert/pkg/code"
)

// Run shows a process on a terminal until its user quits, which is no error, or ctx
// ends. The terminal is then as it was before.
func Run(ctx context.Context, cfg Config, in io.Reader, out io.Writer, environ []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a question that is on its way
	cfg.Context = ctx
	p := tea.NewProgram(New(cfg), tea.WithInput(in), tea.WithOutput(out), tea.WithEnvironment(environ), tea.WithoutSignalHandler())
	defer context.AfterFunc(ctx, p.Quit)()
	_, err := p.Run()
	return err
}

// oneLine returns an error's text for one line of a screen.
func oneLine(err error) string { return code.Printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }
