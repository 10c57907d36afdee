package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/pkg/identity"
)

// identityCommand is "culvert identity".
func identityCommand() *cobra.Command {
	cmd := cli.Group(&cobra.Command{
		Use:   "identity",
		Short: "make and show identities, and replace their keys",
	})
	cmd.AddCommand(identityNewCommand(), identityShowCommand(), identityRotateCommand())
	return cmd
}

// identityNewCommand is "culvert identity new".
func identityNewCommand() *cobra.Command {
	var out, public string
	validity := lifetime(identity.Validity)
	ifMissing := false
	cmd := &cobra.Command{
		Use:   "new -o FILE [--public FILE | --if-missing] [--expires-in TIME]",
		Short: "make a new identity and print its identifier",
		Long: `new makes a new identity and writes it to a private file, which only its owner
can read. It never overwrites a file. With --if-missing it leaves an identity
that is there as it is, for what runs at every start. The last line that it
prints is the identifier alone.`,
		Example: "  culvert identity new -o relay.key",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q: name the file with -o", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return cli.Usagef("name the file to write with -o FILE")
			}
			if ifMissing && public != "" {
				return cli.Usagef("--if-missing writes no public file: leave --public out")
			}
			if _, err := os.Lstat(out); ifMissing && err == nil {
				return keepIdentity(out, cmd.OutOrStdout())
			}
			id, err := writeIdentity(out, public, time.Duration(validity))
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "wrote the private identity to %s: keep it secret\n", out)
			if public != "" {
				fmt.Fprintf(w, "wrote the public identity to %s\n", public)
			}
			_, err = fmt.Fprintln(w, id)
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the private identity to this `FILE`")
	cmd.Flags().StringVar(&public, "public", "", "write the public part to this `FILE`, too")
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "when there is a private identity already, leave it and print its identifier")
	cmd.Flags().Var(&validity, "expires-in", expiresUsage)
	return cmd
}

// keepIdentity prints the identifier of a private identity that is there, which has
// to be one that the programs would take.
func keepIdentity(file string, stdout io.Writer) error {
	id, err := identity.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "left the private identity in %s as it is\n", file)
	_, err = fmt.Fprintln(stdout, id.Identifier())
	return err
}

const expiresUsage = "the key holds for this `TIME`, 90d or 12h: 1m to 3650d; nothing replaces one that has expired"

// A lifetime is the flag of how long a key holds.
type lifetime time.Duration

// Set reads a duration as Go has it, or a number of days: 90d.
func (l *lifetime) Set(text string) error {
	d, err := time.ParseDuration(text)
	if number, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(number, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	switch {
	case err != nil:
		return errors.New("want a time such as 90d or 12h")
	case d < identity.MinValidity || d > identity.Validity:
		return fmt.Errorf("want %s to %s", days(identity.MinValidity), days(identity.Validity))
	}
	*l = lifetime(d)
	return nil
}

func (l *lifetime) String() string { return days(time.Duration(*l)) }

// Type is what a help text calls it.
func (l *lifetime) Type() string { return "time" }

// days prints a time in days where it has a whole number of them.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// writeIdentity makes an identity and writes its files, or none of them.
func writeIdentity(out, public string, validity time.Duration) (identity.Identifier, error) {
	if public != "" {
		if filepath.Clean(public) == filepath.Clean(out) {
			return identity.Identifier{}, cli.Usagef("-o and --public name the same file %s: choose two", out)
		}
		if _, err := os.Lstat(public); err == nil {
			return identity.Identifier{}, fmt.Errorf("writing identity file %s: it exists and is never overwritten: choose another name or move it away", public)
		}
	}
	id, err := identity.NewFor(time.Now(), validity)
	if err != nil {
		return identity.Identifier{}, fmt.Errorf("making an identity: %w", err)
	}
	if err := id.WriteFile(out); err != nil {
		return identity.Identifier{}, err
	}
	if public != "" {
		if err := id.History().WriteFile(public); err != nil {
			// Nobody knows this key yet, so nothing is lost with it.
			return identity.Identifier{}, errors.Join(err, os.Remove(out))
		}
	}
	return id.Identifier(), nil
}

// identityRotateCommand is "culvert identity rotate".
func identityRotateCommand() *cobra.Command {
	var public string
	validity := lifetime(identity.Validity)
	cmd := &cobra.Command{
		Use:   "rotate FILE [--public FILE] [--expires-in TIME]",
		Short: "give an identity a new key, under the same identifier",
		Long: `rotate makes a new key for the identity in a private file, signs it with the key
before, and puts it in that one's place. The identifier stays, so that no list
and no route has to change. Programs that use the file take the new key within
seconds, or at once on SIGHUP, and lose no stream. Whoever has met the new key
refuses the one before from then on: of all copies of the file only this one is
good any more. The last line that is printed is the identifier alone.

It does not undo a theft: who has stolen a key can replace it, too. Against that
there is only a new identity, and the old identifier taken out of all lists.`,
		Example: "  culvert identity rotate relay.key",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := rotateIdentity(args[0], public, time.Duration(validity))
			if h == nil {
				return err
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "replaced the key in %s: %s\n", args[0], describe(h, time.Now()))
			if err != nil {
				return err
			}
			if public != "" {
				fmt.Fprintf(w, "wrote the public identity to %s\n", public)
			}
			_, err = fmt.Fprintln(w, h.Identifier())
			return err
		},
	}
	cmd.Flags().StringVar(&public, "public", "", "write the public part to this `FILE`, too, or replace it there")
	cmd.Flags().Var(&validity, "expires-in", expiresUsage)
	return cmd
}

// rotateIdentity replaces the key in a private file and, if it is named, the
// public file. A history with an error says that the first was done.
func rotateIdentity(file, public string, validity time.Duration) (*identity.History, error) {
	if public != "" {
		// Before anything is done. What is there may be older than the private
		// file, not newer.
		h, err := identity.ReadPublicFile(file)
		if err != nil {
			return nil, err
		}
		if err := h.CheckReplace(public); err != nil {
			return nil, err
		}
	}
	id, err := identity.RotateFile(file, time.Now(), validity)
	if err != nil {
		return nil, err
	}
	if public != "" {
		err = id.History().ReplaceFile(public)
	}
	return id.History(), err
}

// identityShowCommand is "culvert identity show".
func identityShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "print what is in a private or public identity file",
		Long: `show prints how often the key in a private or public identity file has been
replaced, and from when to when it holds. The last line that it prints is the
identifier alone.`,
		Example: "  culvert identity show relay.key",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := identity.ReadPublicFile(args[0])
			if err != nil {
				return err
			}
			now := time.Now()
			if err := h.CheckTime(now, 0); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "culvert: warning: %s: %v\n", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", describe(h, now), h.Identifier())
			return err
		},
	}
}

// describe says how often a history's key was replaced, how old it is, and when
// it expires.
func describe(h *identity.History, now time.Time) string {
	changes := "1 change"
	if h.Len() > 1 {
		changes = fmt.Sprintf("%d changes", h.Len())
	}
	return fmt.Sprintf("%s; the key was made at %s (%s) and holds until %s (%s)", changes,
		h.Created().Format(time.RFC3339), span(now.Sub(h.Created()), " ago", "not yet"),
		h.Expires().Format(time.RFC3339), span(h.Expires().Sub(now), " left", "expired"))
}

// span prints a time span in its largest whole unit, with what it is behind it,
// and another word for one that is negative.
func span(d time.Duration, what, negative string) string {
	for _, u := range []struct {
		name string
		span time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		switch n := d / u.span; {
		case n == 1:
			return "1 " + u.name + what
		case n > 1:
			return fmt.Sprintf("%d %ss%s", n, u.name, what)
		}
	}
	if d < 0 {
		return negative
	}
	return "less than a minute" + what
}

// oneFile checks that there is one argument.
func oneFile(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("name a file")
	case 1:
		return nil
	}
	return fmt.Errorf("unexpected argument %q: name one file", args[1])
}
