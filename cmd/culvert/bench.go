//go:build !image

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/bench"
	"github.com/culvert-net/culvert/internal/bench/rig"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
)

// benchOptions are the flags of "culvert bench".
type benchOptions struct {
	cases   string
	rounds  int
	window  time.Duration
	idle    time.Duration
	json    string
	pattern *regexp.Regexp
}

// benchCommand is "culvert bench".
func benchCommand() *cobra.Command {
	opt := benchOptions{}
	windows := bench.DefaultWindows()
	cmd := &cobra.Command{
		Use:   "bench [NAME=HOST:PORT]...",
		Short: "measure what Culvert carries and costs, here or on your own paths",
		Long: `bench measures throughput, latency and the rate of connections. Without
arguments it does so on this machine, over paths it makes itself with fresh
identities: the target dialed directly, inlet to outlet, and both with one and
two relays between; their processor time and memory are measured too.

With arguments it measures paths of yours, which take turns in each case: run
"culvert bench serve" where the service is, let an outlet offer it, and name the
inlet's address; beside it perhaps the target's own, to compare with.

The last path is what the others' ratios are to.`,
		Example: `  culvert bench
  culvert bench --cases 'request|connect' --rounds 5
  culvert bench serve --listen 10.0.0.5:7000
  culvert bench direct=10.0.0.5:7000 culvert=127.0.0.1:17000`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := cli.Signals(cmd.Context(), "culvert bench", cmd.ErrOrStderr())
			defer stop()
			if err := opt.check(); err != nil {
				return err
			}
			return runBench(ctx, opt, args, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&opt.cases, "cases", "^(throughput-.*-(1|8)|request-.*|connect|beside-bulk)$", "run the cases whose names match this `PATTERN`, of "+strings.Join(caseNames(), ", "))
	flags.IntVar(&opt.rounds, "rounds", 3, "how many turns each path gets in a case")
	flags.DurationVar(&opt.window, "window", windows.Measure, "how long a turn measures")
	flags.DurationVar(&opt.idle, "idle", windows.Idle, "how long idle connections rest before memory is read")
	flags.StringVar(&opt.json, "json", "", "also write all rounds and medians to this `FILE`")
	cmd.AddCommand(benchServeCommand(), benchPartCommand())
	return cmd
}

func caseNames() (names []string) {
	for _, c := range bench.Cases(bench.DefaultWindows()) {
		names = append(names, c.Name)
	}
	return names
}

func (o *benchOptions) check() (err error) {
	if o.rounds < 1 {
		return cli.Usagef("--rounds %d: at least 1", o.rounds)
	}
	if o.window <= 0 || o.idle < 0 {
		return cli.Usagef("--window and --idle: a time, such as 1.5s")
	}
	if o.pattern, err = regexp.Compile(o.cases); err != nil {
		return cli.Usagef("--cases: %w", err)
	}
	if !slices.ContainsFunc(caseNames(), o.pattern.MatchString) {
		return cli.Usagef("--cases %q matches none of %s", o.cases, strings.Join(caseNames(), ", "))
	}
	return nil
}

// runBench measures the paths named, or its own.
func runBench(ctx context.Context, o benchOptions, named []string, stdout io.Writer) error {
	var paths []*bench.Path
	if len(named) > 0 {
		for _, arg := range named {
			p, err := namedPath(arg)
			if err != nil {
				return err
			}
			paths = append(paths, p)
		}
	} else {
		own, stop, err := ownPaths(ctx)
		defer stop()
		if err != nil {
			return stopped(ctx, err)
		}
		paths = own
	}
	windows := bench.DefaultWindows()
	windows.Measure, windows.Idle = o.window, o.idle
	report := &bench.Report{Date: time.Now().UTC().Format(time.DateOnly), Machine: fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()), Rounds: o.rounds}
	for _, c := range bench.Cases(windows) {
		if !o.pattern.MatchString(c.Name) {
			continue
		}
		r, err := bench.Measure(ctx, c, paths, o.rounds, func(string, bench.Figures, error) {})
		if err != nil {
			return stopped(ctx, err)
		}
		report.Results = append(report.Results, r)
		if err := r.Write(stdout, paths[len(paths)-1].Name); err != nil {
			return err
		}
	}
	if o.json == "" {
		return allMeasured(report)
	}
	b, err := report.JSON()
	if err == nil {
		err = os.WriteFile(o.json, b, 0o600)
	}
	return errors.Join(err, allMeasured(report))
}

// stopped turns an error into a clean stop when it is but the signal's.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// allMeasured is an error when some path has no figures, for whoever looks at
// the exit code alone; the tables have said why.
func allMeasured(r *bench.Report) error {
	for _, res := range r.Results {
		for _, s := range res.Series {
			if len(s.Rounds) == 0 {
				return fmt.Errorf("%s over %s was not measured: %s", res.Case, s.Path, s.Missing)
			}
		}
	}
	return nil
}

// namedPath parses NAME=HOST:PORT, or HOST:PORT, which is its own name.
func namedPath(arg string) (*bench.Path, error) {
	name, addr, ok := strings.Cut(arg, "=")
	if !ok {
		name, addr = arg, arg
	}
	if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || name == "" {
		return nil, cli.Usagef("path %q: want NAME=HOST:PORT", arg)
	}
	return &bench.Path{Name: name, Addr: addr}, nil
}

// ownPaths makes paths on this machine, of processes that run this program.
// stop is to be called in any case.
func ownPaths(ctx context.Context) (paths []*bench.Path, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, func() {}, err
	}
	r, err := rig.New(ctx, func(kind string) []string { return []string{self, "bench", "part", kind} })
	if err != nil {
		return nil, func() {}, err
	}
	paths, end, err := r.StartAll(ctx, []rig.Candidate{
		{Name: "direct", Start: func(c *rig.Chain) string { return c.Target() }},
		{Name: "inlet-outlet", Start: func(c *rig.Chain) string { return c.Culvert(0, nil) }},
		{Name: "with-2-relays", Start: func(c *rig.Chain) string { return c.Culvert(2, nil) }},
		{Name: "with-1-relay", Start: func(c *rig.Chain) string { return c.Culvert(1, nil) }},
	})
	return paths, func() { end(); r.Close() }, err
}

// benchServeCommand is "culvert bench serve".
func benchServeCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "serve --listen HOST:PORT",
		Short: "be the target that culvert bench measures with",
		Long: `serve answers what "culvert bench NAME=HOST:PORT" sends, until Ctrl-C. It echoes,
sends and swallows bytes for whoever connects: let nobody reach it but an outlet.`,
		Example: "  culvert bench serve --listen 127.0.0.1:7000",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if host, _, err := net.SplitHostPort(listen); err != nil || host == "" {
				return cli.Usagef("--listen %q: want HOST:PORT", listen)
			}
			ctx, stop := cli.Signals(cmd.Context(), "culvert bench serve", cmd.ErrOrStderr())
			defer stop()
			ln, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "listening at %s\n", ln.Addr())
			return bench.Serve(ctx, ln)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "the `ADDRESS` to listen at")
	return cmd
}

// benchPartCommand runs one of the daemons, for culvert bench itself.
func benchPartCommand() *cobra.Command {
	daemons := map[string]cli.Daemon{
		"inlet":  {Kind: config.KindInlet, Serve: cli.Serving(config.KindInlet, config.LoadInlet, app.NewInlet)},
		"outlet": {Kind: config.KindOutlet, Serve: cli.Serving(config.KindOutlet, config.LoadOutlet, app.NewOutlet)},
		"relay":  {Kind: config.KindRelay, Serve: cli.Serving(config.KindRelay, config.LoadRelay, app.NewRelay)},
	}
	return &cobra.Command{
		Use:                "part KIND",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, ok := daemons[append(args, "")[0]]
			if !ok {
				return cli.Usagef("part: want inlet, outlet or relay")
			}
			if d.Run(cmd.Context(), args[1:], cmd.OutOrStdout(), cmd.ErrOrStderr()) != cli.ExitOK {
				return cli.ErrSilent
			}
			return nil
		},
	}
}
