package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
)

// checkCommand is "culvert check".
func checkCommand() *cobra.Command {
	var kind string
	var noFiles bool
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "validate settings files of inlet, outlet, relay and authority",
		Long: `check reads settings files as the commands would and names the place of every
fault. It looks at the file alone: CULVERT_ variables and flags, which could add
to it, are not looked at, but ${NAME} in the file is expanded.`,
		Example: "  culvert check inlet.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name a file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind != "" && !slices.Contains(config.Kinds(), config.Kind(kind)) {
				return cli.Usagef("--kind %q: want inlet, outlet, relay, authority or webhook", kind)
			}
			failed := false
			for _, file := range args {
				report, err := checkFile(file, config.Kind(kind), !noFiles)
				if err != nil {
					failed = true
					printFaults(cmd.ErrOrStderr(), err)
					continue
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (%s, %s)\n", file, report.Kind, report.Summary); err != nil {
					return err
				}
			}
			if failed {
				return cli.ErrSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "whose settings: inlet, outlet, relay, authority or webhook, as `KIND` (default: told from the keys)")
	cmd.Flags().BoolVar(&noFiles, "no-files", false, "do not read the identity file")
	return cmd
}

// checkFile validates one file and, if files is set, the identity file that it
// names.
func checkFile(file string, kind config.Kind, files bool) (*config.Report, error) {
	report, err := config.Check(file, kind, os.Environ())
	if err != nil || !files || report.Identity == "" { // a webhook has none
		return report, err
	}
	id, err := identity.ReadFile(report.Common.Identity)
	if err == nil {
		err = id.History().CheckTime(time.Now(), 0)
	}
	if err != nil {
		return nil, report.Common.Fault("identity", err)
	}
	return report, nil
}

// printFaults prints the faults as they are, each beginning with its place, for
// editors and people to jump to.
func printFaults(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(w, strings.TrimRight(line, "\r\n"))
	}
}
