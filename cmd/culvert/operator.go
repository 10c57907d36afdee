package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// configFlag adds --config, by which a command finds the authority.
func configFlag(cmd *cobra.Command) {
	f := *config.Flags(config.KindAuthority).Lookup("config")
	f.Usage = "the authority's settings `FILE`"
	cmd.Flags().AddFlag(&f)
}

// loadAuthority reads the settings of the authority that a command is about.
func loadAuthority(cmd *cobra.Command) (*config.Authority, error) {
	return config.LoadAuthority(config.Source{Flags: cmd.Flags(), Environ: os.Environ()})
}

// loadOwner is loadAuthority with the authority's identifier, whose the store is.
func loadOwner(cmd *cobra.Command) (*config.Authority, identity.Identifier, error) {
	cfg, err := loadAuthority(cmd)
	if err != nil {
		return nil, identity.Identifier{}, err
	}
	id, err := identity.ReadPublicFile(cfg.Identity)
	if err != nil {
		return nil, identity.Identifier{}, cfg.Fault("identity", err)
	}
	return cfg, id.Identifier(), nil
}

// startTime is how long an authority that has its store open may take until it answers
// at its admin address.
const startTime = 5 * time.Second

// reach does something at the authority by its admin address; or, if it does not run,
// returns its store opened, with which it is still to be done. An authority that has
// the store open and does not answer is about to, or about to end.
func reach(ctx context.Context, cfg *config.Authority, do func(context.Context, admin.Service) error) (*app.Offline, error) {
	var asked error
	for began := time.Now(); ; {
		if cfg.Admin != "" {
			access, err := admin.ReadAccess(admin.AccessFile(cfg.Store))
			if err == nil {
				err = do(ctx, admin.NewClient(cfg.Admin, access))
			}
			// An impostor's address says nothing about whether the authority runs.
			if !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, admin.ErrImpostor) {
				return nil, err
			}
			asked = err
		}
		offline, err := app.OpenOffline(cfg) // which waits a moment for another process
		switch inUse := errors.Is(err, authority.ErrInUse); {
		case inUse && errors.Is(asked, admin.ErrNotRunning) && time.Since(began) < startTime:
		case inUse && errors.Is(asked, admin.ErrImpostor):
			return nil, fmt.Errorf("%w: the authority runs, and was told nothing: %w: if it was started with another admin address, start it anew; if not, look who listens there", err, asked)
		case inUse:
			return nil, fmt.Errorf("%w: the authority runs, and nobody answers at its admin address (%s): set admin in its settings, and start it anew", err, orNone(cfg.Admin))
		default:
			return offline, err
		}
	}
}

// withAuthority does something at the authority: by its admin address if it runs,
// and else in its store, which it says. do may be called for both, if the first
// finds that nobody is there.
func withAuthority(cmd *cobra.Command, do func(ctx context.Context, s admin.Service) error) error {
	cfg, err := loadAuthority(cmd)
	if err != nil {
		return err
	}
	offline, err := reach(cmd.Context(), cfg, do)
	if offline == nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "culvert: the authority does not run: working on its store %s\n", cfg.Store)
	return errors.Join(do(cmd.Context(), offline), offline.Close())
}

// listCommand is "list" of what an authority has: all returns that, and show prints one of
// it, as JSON where the flag --json, which is described by asJSON, is set.
func listCommand[T any](short, asJSON string, all func(ctx context.Context, s admin.Service) iter.Seq2[T, error], show func(w io.Writer, v T, asJSON bool) error) *cobra.Command {
	var inJSON bool
	cmd := &cobra.Command{
		Use:   "list --config FILE",
		Short: short,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAuthority(cmd, func(ctx context.Context, s admin.Service) error {
				for v, err := range all(ctx, s) {
					if err == nil {
						err = show(cmd.OutOrStdout(), v, inJSON)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	configFlag(cmd)
	cmd.Flags().BoolVar(&inJSON, "json", false, asJSON)
	return cmd
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// parseAttributes reads the values of --attr.
func parseAttributes(texts []string) (map[string]string, error) {
	attributes := make(map[string]string, len(texts))
	for _, a := range texts {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--attr %q: want NAME=VALUE", a)
		}
		if _, twice := attributes[name]; twice {
			return nil, fmt.Errorf("--attr %q: the attribute %q is given twice", a, name)
		}
		attributes[name] = value
	}
	return attributes, nil
}

// showAttributes prints attributes as --attr takes them, the value in quotes
// where it is no plain word.
func showAttributes(a credential.Attributes) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		value := a[name]
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			value = fmt.Sprintf("%+q", value)
		}
		list = append(list, name+"="+value)
	}
	if len(list) == 0 {
		return "no attributes"
	}
	return strings.Join(list, " ")
}

// noArguments refuses arguments of a command that has flags only.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

// someArguments checks that there is an argument; what says what to name.
func someArguments(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("name " + what)
		}
		return nil
	}
}

// printLine writes a line, whose error is the command's.
func printLine(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format+"\n", args...)
	return err
}
