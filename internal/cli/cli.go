// Package cli owns what the commands have in common: exit codes, how an error
// is printed, signals, --version and --health. What a command does is handed
// in.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/code"
)

// Exit codes of all commands.
const (
	ExitOK      = 0 // done, or stopped as asked
	ExitFailure = 1
	ExitUsage   = 2 // the command line makes no sense
)

// A UsageError is a command line that makes no sense.
type UsageError struct{ Err error }

// Error returns the text of u.Err.
func (u *UsageError) Error() string { return u.Err.Error() }

// Unwrap returns u.Err.
func (u *UsageError) Unwrap() error { return u.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// ErrSilent is a failure that was reported already: only the exit code tells.
var ErrSilent = errors.New("reported already")

// Execute runs a command with its arguments and returns the exit code. An error
// is printed to stderr, once, each of its lines behind the command's name.
// Cobra's own errors, which come before the command has run, are wrong usage.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	ran := false
	markRan(root, &ran)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = Version(root.Name())
	root.SetVersionTemplate("{{.Version}}\n")
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, ErrSilent) {
		return ExitFailure
	}
	printError(stderr, root.Name(), err)
	if !ran || isUsage(err) {
		printError(stderr, root.Name(), fmt.Errorf("run \"%s --help\" for the usage", cmd.CommandPath()))
		return ExitUsage
	}
	return ExitFailure
}

// markRan notes when the function of cmd or one of its subcommands begins.
func markRan(cmd *cobra.Command, ran *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*ran = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		markRan(sub, ran)
	}
}

// isUsage reports whether err is the command line's fault alone.
func isUsage(err error) bool {
	var u *UsageError
	var faults config.Faults
	return errors.As(err, &u) || errors.As(err, &faults) && faults.Usage()
}

// printError prints each line of err behind a command's name. Whoever was asked may have
// made a part of it, as of an answer that is no HTTP: it does nothing to a terminal.
func printError(w io.Writer, name string, err error) {
	for line := range strings.Lines(err.Error()) {
		parts := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		for i, part := range parts {
			parts[i] = code.Printable(part)
		}
		fmt.Fprintf(w, "%s: %s\n", name, strings.Join(parts, "\t"))
	}
}

// Group makes a command that only holds others a failure when run itself, which
// cobra would answer with its help and success.
func Group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				names = append(names, sub.Name())
			}
		}
		choice := strings.Join(names, ", ")
		if len(args) == 0 {
			return Usagef("what to do is missing: one of %s", choice)
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return Usagef("unknown command %q (did you mean %q?)", args[0], near[0])
		}
		return Usagef("unknown command %q: one of %s", args[0], choice)
	}
	return cmd
}

// Version returns one line: the command, its version and commit as far as the
// build recorded them, and what it was built by and for.
func Version(name string) string {
	return fmt.Sprintf("%s %s %s %s/%s", name, obs.ReadBuild(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
