//go:build linux

// Command bench measures Culvert beside what people use: the same load over the
// same machine, each candidate of real processes of its own, all of them taking
// turns. See docs/performance.md for the method and the last results.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/culvert-net/culvert/internal/bench"
	"github.com/culvert-net/culvert/internal/bench/rig"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == spliceCommand {
		fail(splice(os.Args[2], os.Args[3]))
		return
	}
	if len(os.Args) == 5 && os.Args[1] == bareCommand {
		fail(bare(os.Args[2], os.Args[3], os.Args[4]))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail(run(ctx, os.Args[1:], os.Stdout))
}

func fail(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// Options are what the command line says.
type options struct {
	bin     string
	paths   *regexp.Regexp
	cases   *regexp.Regexp
	rounds  int
	windows bench.Windows
	json    string
	check   bool
	verbose bool
}

func parse(args []string) (o options, err error) {
	o.windows = bench.DefaultWindows()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "the `folder` of Culvert's programs")
	paths := flags.String("paths", "", "measure only paths that match this `pattern`")
	cases := flags.String("cases", "", "run only cases that match this `pattern`")
	flags.IntVar(&o.rounds, "rounds", 3, "how many turns each path gets in a case")
	flags.DurationVar(&o.windows.Measure, "window", o.windows.Measure, "how long a turn measures")
	flags.DurationVar(&o.windows.Idle, "idle", o.windows.Idle, "how long idle connections rest before memory is read")
	flags.StringVar(&o.json, "json", "", "write all rounds and medians to this `file`")
	flags.BoolVar(&o.check, "check", false, "fail when a ratio is far from what it should be")
	flags.BoolVar(&o.verbose, "v", false, "print each turn")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds %d: at least 1", o.rounds)
	}
	if o.paths, err = regexp.Compile(*paths); err != nil {
		return o, fmt.Errorf("-paths: %w", err)
	}
	if o.cases, err = regexp.Compile(*cases); err != nil {
		return o, fmt.Errorf("-cases: %w", err)
	}
	return o, nil
}

// run measures and reports.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	r, err := rig.New(ctx, func(kind string) []string { return []string{filepath.Join(o.bin, kind)} })
	if err != nil {
		return err
	}
	defer r.Close()
	if err := makeCertificates(r); err != nil {
		return err
	}
	report := &bench.Report{
		Date: time.Now().UTC().Format("2006-01-02"), Machine: machine(), Rounds: o.rounds, Notes: map[string]string{},
	}
	fmt.Fprintf(out, "%s\n%s\n\n", report.Date, report.Machine)
	if err := measure(ctx, r, o, report, out); err != nil {
		return err
	}
	if o.json != "" {
		if err := writeJSON(o.json, report); err != nil {
			return err
		}
	}
	met := writeGoals(out, report)
	if o.check && !met {
		return errors.New("a goal was missed")
	}
	return nil
}

// A group is paths that take turns in the same cases.
type group struct {
	base       string // the path that others are compared to
	candidates []rig.Candidate
	cases      []*bench.Case
}

func measure(ctx context.Context, r *rig.Rig, o options, report *bench.Report, out io.Writer) error {
	for _, g := range groups(r, o.windows) {
		g.cases = slices.DeleteFunc(g.cases, func(c *bench.Case) bool { return !o.cases.MatchString(c.Name) })
		g.candidates = slices.DeleteFunc(g.candidates, func(c rig.Candidate) bool { return !o.paths.MatchString(c.Name) })
		if len(g.cases) == 0 || len(g.candidates) == 0 {
			continue
		}
		if err := measureGroup(ctx, r, g, o, report, out); err != nil {
			return err
		}
	}
	return nil
}

func measureGroup(ctx context.Context, r *rig.Rig, g group, o options, report *bench.Report, out io.Writer) error {
	paths, stop, err := r.StartAll(ctx, g.candidates)
	defer stop()
	if err != nil {
		return err
	}
	for _, c := range g.candidates {
		report.Notes[c.Name] = c.Note
	}
	for _, c := range g.cases {
		result, err := bench.Measure(ctx, c, paths, o.rounds, func(path string, f bench.Figures, err error) {
			switch {
			case !o.verbose:
			case err != nil:
				fmt.Fprintf(out, "  %s %s: %v\n", c.Name, path, err)
			default:
				fmt.Fprintf(out, "  %s %s: %.4g %s\n", c.Name, path, f[c.Main], c.Main)
			}
		})
		if err != nil {
			return err
		}
		report.Results = append(report.Results, result)
		if err := result.Write(out, g.base); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(path string, report *bench.Report) error {
	b, err := report.JSON()
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// machine describes what this runs on.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}
