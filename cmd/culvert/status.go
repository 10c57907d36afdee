package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/watch"
)

// statusCommand is "culvert status".
func statusCommand() *cobra.Command {
	var asJSON bool
	var streams int
	cmd := &cobra.Command{
		Use:   "status [SECTION] --admin ADDRESS | --config FILE",
		Short: "show what a running inlet, outlet, relay or authority is doing",
		Long: `status asks a running process by its admin address, and shows who it is, whether it
is ready and why not, its services, channels with their routes, registrations, and
the streams or joins that have moved most. SECTION shows one part: ` + strings.Join(watch.Sections(), ", ") + `.

The address is that of --admin, or else of CULVERT_ADMIN, or else of the settings file
(--config, CULVERT_CONFIG), of whatever kind. There are colours on a terminal, unless
NO_COLOR is set. --json prints what the process answers; SECTION is then a name in it.

It ends with 0 when the process is ready, with 1 when it is not or nobody answers.`,
		Example: `  culvert status --config inlet.yaml
  culvert status streams --admin unix:///run/culvert/admin.sock --streams 50
  culvert status --admin 127.0.0.1:9101 --json channels`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q: one section, or all", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			section := append(args, "")[0]
			if section != "" && !asJSON && !slices.Contains(watch.Sections(), section) {
				return &cli.UsageError{Err: &watch.SectionError{Name: section, Known: watch.Sections()}}
			}
			client, err := adminClient(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, stop := cli.Signals(cmd.Context(), "culvert status", cmd.ErrOrStderr())
			defer stop()
			if asJSON {
				return statusJSON(ctx, client, section, streams, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return statusText(ctx, client, section, streams, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.AddFlagSet(config.AdminFlags())
	flags.IntVarP(&streams, "streams", "n", 10, "show this many streams, or joins, at most")
	flags.BoolVar(&asJSON, "json", false, "print what the process answers, as JSON")
	return cmd
}

// adminClient returns what asks the process that a command line is about.
func adminClient(cmd *cobra.Command) (*watch.Client, error) {
	admin, err := config.LoadAdmin(config.Source{Flags: cmd.Flags(), Environ: os.Environ()})
	if err != nil {
		return nil, err
	}
	return watch.NewClient(admin), nil
}

// ask returns a process's status and whether it is ready.
func ask(ctx context.Context, client *watch.Client, streams int) (json.RawMessage, *watch.Readiness, error) {
	raw, err := client.Raw(ctx, streams)
	if err != nil {
		return nil, nil, err
	}
	ready, err := client.Ready(ctx)
	return raw, ready, err
}

// statusJSON prints what the process answers. What is not ready goes to stderr.
func statusJSON(ctx context.Context, client *watch.Client, section string, streams int, stdout, stderr io.Writer) error {
	raw, ready, err := ask(ctx, client, streams)
	if err != nil {
		return err
	}
	if section != "" {
		if raw, err = watch.Section(raw, section); err != nil {
			return &cli.UsageError{Err: err}
		}
	}
	if _, err := stdout.Write(watch.Indent(raw)); err != nil {
		return err
	}
	if ready.Ready {
		return nil
	}
	for _, c := range ready.Checks {
		if !c.Ready {
			fmt.Fprintf(stderr, "culvert: not ready: %s: %s\n", c.Name, c.Reason)
		}
	}
	return cli.ErrSilent
}

// statusText prints the status for people.
func statusText(ctx context.Context, client *watch.Client, section string, streams int, stdout io.Writer) error {
	// Sorted by what they have moved, all that there are have to be known.
	raw, ready, err := ask(ctx, client, watch.MaxStreams)
	if err != nil {
		return err
	}
	s, err := watch.Parse(raw)
	if err != nil {
		return err
	}
	out := stdout
	if !colours(stdout) {
		out = watch.PlainWriter(stdout)
	}
	err = watch.Print(out, s, ready, watch.Options{Width: widthOf(stdout), Section: section, Streams: streams, Address: client.Address()})
	if err == nil && !ready.Ready {
		err = cli.ErrSilent // it was printed, what is not
		if section != "" && section != "process" {
			err = errors.New("not ready: \"culvert status\" says why")
		}
	}
	return err
}

// colours reports whether what is written to w is to have colours: a person looks at
// it, and has not said otherwise (https://no-color.org).
func colours(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// widthOf returns how many columns a terminal has, 0 for what is none.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(f.Fd())
	if err != nil {
		return 0
	}
	return width
}
