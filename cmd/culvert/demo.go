//go:build !image

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/cli"
)

// demoCommand is "culvert demo".
func demoCommand() *cobra.Command {
	var opt app.DemoOptions
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "run the whole system here and show what each part sees",
		Long: `demo runs a relay, an outlet, an inlet and a small HTTP service in one process,
with fresh identities in a temporary folder. It makes a request through them,
shows what each part saw, prints how to try more, and stays up until Ctrl-C.`,
		Example: "  culvert demo",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verbose {
				opt.Log = cmd.ErrOrStderr()
			}
			ctx, stop := cli.Signals(cmd.Context(), "culvert demo", cmd.ErrOrStderr())
			defer stop()
			return app.Demo(ctx, cmd.OutOrStdout(), opt)
		},
	}
	cmd.Flags().Uint16Var(&opt.Port, "port", 0, "the `PORT` of 127.0.0.1 at which the inlet accepts clients (default: a free one)")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the logs of all parts")
	return cmd
}
