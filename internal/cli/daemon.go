package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/config"
)

// A Daemon is one of the commands that run until they are told to stop.
type Daemon struct {
	Kind    config.Kind
	Short   string // one line
	Long    string
	Example string

	// Serve loads the settings and serves until ctx ends. Its log goes to
	// stderr.
	Serve func(ctx context.Context, src config.Source, stderr io.Writer) error
}

// Run is the command: it returns the exit code. ctx ends it as a signal does.
func (d Daemon) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	name := string(d.Kind)
	health := false
	cmd := &cobra.Command{
		Use:     name + " [--config FILE] [flags]",
		Short:   d.Short,
		Long:    d.Long,
		Example: d.Example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 && !health {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q: --health asks for one service, or for all", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			src := config.Source{Flags: cmd.Flags(), Environ: os.Environ()}
			if health {
				return probe(cmd.Context(), d.Kind, src, append(args, "")[0], stdout)
			}
			ctx, stop := Signals(cmd.Context(), name, stderr)
			defer stop()
			return d.Serve(ctx, src, stderr)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.AddFlagSet(config.Flags(d.Kind))
	flags.BoolVar(&health, "health", false, "ask the running "+name+", by its metrics or admin address, whether it (or the SERVICE named after the flags) is ready; exit 0 or 1")
	return Execute(ctx, cmd, args, stdout, stderr)
}
