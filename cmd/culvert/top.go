//go:build !image

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/top"
	"github.com/culvert-net/culvert/internal/watch"
)

// leastInterval is how often top asks at most.
const leastInterval = 100 * time.Millisecond

// topCommand is "culvert top".
func topCommand() *cobra.Command {
	var interval time.Duration
	var streams int
	cmd := &cobra.Command{
		Use:   "top --admin ADDRESS | --config FILE",
		Short: "show live what a running inlet, outlet or relay carries",
		Long: `top asks a running process by its admin address, as culvert status does, again and
again: streams by what they carry each second, channels, routes, registrations. The
keys stand in its last line; ? shows all of them. It goes on when the process is
started anew.`,
		Example: `  culvert top --config inlet.yaml
  culvert top --admin unix:///run/culvert/admin.sock --interval 250ms`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < leastInterval || streams < 1 || streams > watch.MaxStreams {
				return cli.Usagef("--interval: want at least %s; --streams: want 1 to %d", leastInterval, watch.MaxStreams)
			}
			client, err := adminClient(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if !isTerminal(cmd.InOrStdin()) || !isTerminal(cmd.OutOrStdout()) {
				return errors.New("top needs a terminal: \"culvert status\" prints once, for people or as JSON")
			}
			ctx, stop := cli.Signals(cmd.Context(), "culvert top", cmd.ErrOrStderr())
			defer stop()
			return top.Run(ctx, top.Config{
				Ask: func(ctx context.Context) (*watch.Status, *watch.Readiness, error) {
					s, err := client.Status(ctx, streams)
					if err != nil {
						return nil, nil, err
					}
					ready, err := client.Ready(ctx)
					return s, ready, err
				},
				Interval: interval, Address: client.Address(),
			}, cmd.InOrStdin(), cmd.OutOrStdout(), os.Environ())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.AddFlagSet(config.AdminFlags())
	flags.DurationVarP(&interval, "interval", "i", time.Second, "ask again after this `TIME`")
	flags.IntVarP(&streams, "streams", "n", 1000, "ask for this many streams, or joins, the newest")
	return cmd
}

// isTerminal reports whether a stream of the command is one.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(f.Fd())
}
