package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/ping"
	"github.com/culvert-net/culvert/internal/watch"
)

// pingOptions are the flags of "culvert ping" beside an inlet's.
type pingOptions struct {
	count    int
	interval time.Duration
	time     time.Duration
	open     bool
	json     bool
}

// pingCommand is "culvert ping".
func pingCommand() *cobra.Command {
	var opt pingOptions
	cmd := &cobra.Command{
		Use:   "ping [SERVICE] --config inlet.yaml",
		Short: "measure each hop of each route to a service, and say what to change",
		Long: `ping goes the ways of an inlet's service one after the other, as the inlet: by its
identity, its credential and its settings. Of each hop it measures the name's
resolution, the connection, the handshake in which the hop proves its identity, and
the relay's answer; then the handshake with the outlet, end to end, and round trips
on the channel. Where something does not work it says what to change.

It works beside the running inlet and disturbs nobody: it is a process of its own to
others, takes nobody's place, and enrols nowhere. The outlet is not asked for the
service unless --open says so: its target sees a connection then, which ends at once.

It ends with 0 when a way works, with 1 when none does.`,
		Example: `  culvert ping orders-db --config inlet.yaml
  culvert ping orders-db --config inlet.yaml --open --count 100 --interval 10ms
  culvert ping --identity inlet.key --service orders-db --outlet IDENTIFIER \
               --route tcp://relay-a:4000/IDENTIFIER --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q: ping measures one service", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := cli.Signals(cmd.Context(), "culvert ping", cmd.ErrOrStderr())
			defer stop()
			if err := opt.check(); err != nil {
				return err
			}
			cfg, err := config.LoadInletWays(config.Source{Flags: cmd.Flags(), Environ: os.Environ()})
			if err != nil {
				return err
			}
			return runPing(ctx, opt, cfg, append(args, "")[0], cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVarP(&opt.count, "count", "c", ping.DefaultCount, "send this many PINGs over each way")
	flags.DurationVarP(&opt.interval, "interval", "i", ping.DefaultInterval, "wait this `TIME` between them")
	flags.DurationVar(&opt.time, "timeout", ping.DefaultTimeout, "give one way up that has no channel within this `TIME`")
	flags.BoolVar(&opt.open, "open", false, "have the outlet open the service, too: may this inlet use it, and does its target answer?")
	flags.BoolVar(&opt.json, "json", false, "print all that was found as one JSON object")
	flags.AddFlagSet(config.Flags(config.KindInlet))
	return cmd
}

func (o *pingOptions) check() error {
	switch {
	case o.count < 1 || o.count > ping.MaxCount:
		return cli.Usagef("--count %d: want 1 to %d", o.count, ping.MaxCount)
	case o.interval <= 0:
		return cli.Usagef("--interval: want a time, such as 200ms")
	case o.time <= 0:
		return cli.Usagef("--timeout: want a time, such as 20s")
	}
	return nil
}

// runPing measures and prints. What was found is printed whatever ends it.
func runPing(ctx context.Context, opt pingOptions, cfg *config.Inlet, service string, stdout io.Writer) error {
	printer := ping.NewPrinter(stdout)
	c := ping.Config{Inlet: cfg, Service: service, Count: opt.count, Interval: opt.interval, Timeout: opt.time, Open: opt.open}
	if !opt.json {
		c.Trace = printer.Trace()
	}
	p, err := ping.New(c)
	var none *ping.ServiceError
	if errors.As(err, &none) {
		return &cli.UsageError{Err: none}
	}
	if err != nil {
		return err
	}
	report := p.Run(ctx)
	if opt.json {
		err = printJSON(stdout, report)
	} else {
		err = printer.Summary(report)
	}
	if err == nil && !report.Works {
		err = cli.ErrSilent
	}
	return err
}

// printJSON prints v as JSON that a terminal can show.
func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("printing JSON: %w", err)
	}
	_, err = w.Write(watch.Indent(b))
	return err
}
