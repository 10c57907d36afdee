package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/systemd"
)

// A Daemon is one of the commands that run until they are told to stop.
type Daemon struct {
	Kind    config.Kind
	Short   string // one line
	Long    string // what it does; where settings come from is said behind it
	Example string

	// Serve loads the settings and serves until ctx ends. Its log goes to
	// stderr. See [Serving].
	Serve func(ctx context.Context, src config.Source, stderr io.Writer) error
}

// settingsHelp is what all daemons say of their settings.
const settingsHelp = `

Settings come from a YAML file, from CULVERT_ variables named like the flags
(CULVERT_LISTEN; lists are separated by white space) and from flags; of these
the last one counts.`

// A runner serves until ctx ends. Own, which is called before Run, says that the
// process is the runner's alone, and who has started it. Follow, which is called before
// Run, too, makes it take what changes in its settings file; reread reads the settings
// as they were read at the start. Reload, which may be called from before Run until after it,
// makes it take what its files have now.
type runner[C any] interface {
	Run(ctx context.Context) error
	Own(m *systemd.Manager)
	Follow(reread func() (C, error))
	Reload()
}

// Serving makes a [Daemon]'s Serve: it loads settings C, makes the runner R that
// they describe, with a log, metrics and health named after kind, and runs it.
func Serving[C interface{ Shared() *config.Common }, R runner[C]](
	kind config.Kind, load func(config.Source) (C, error), build func(C, *obs.Obs) (R, error),
) func(context.Context, config.Source, io.Writer) error {
	return func(ctx context.Context, src config.Source, stderr io.Writer) error {
		manager, err := systemd.Adopt()
		if err != nil {
			return err
		}
		cfg, err := load(src)
		if err != nil {
			return err
		}
		common := cfg.Shared()
		o, err := obs.New(obs.Config{Command: string(kind), LogFormat: common.LogFormat, LogLevel: common.LogLevel, LogOutput: stderr})
		if err != nil {
			return err
		}
		r, err := build(cfg, o)
		if err != nil {
			return err
		}
		r.Own(manager)
		r.Follow(func() (C, error) { return load(src) })
		scaling, stop := context.WithCancel(context.WithoutCancel(ctx)) // draining is work, too
		var done sync.WaitGroup
		done.Go(func() { scaleProcs(scaling, cpuTime) })
		defer done.Wait()
		defer stop()
		defer Hangups(r.Reload)()
		return r.Run(ctx)
	}
}

// Run is the command: it returns the exit code. ctx ends it as a signal does.
func (d Daemon) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return Execute(ctx, d.Command(stdout, stderr), args, stdout, stderr)
}

// Command returns the command, for one that has others below it.
func (d Daemon) Command(stdout, stderr io.Writer) *cobra.Command {
	name := string(d.Kind)
	health := false
	cmd := &cobra.Command{
		Use:     name + " [--config FILE] [flags]",
		Short:   d.Short,
		Long:    d.Long + settingsHelp,
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
	return cmd
}
