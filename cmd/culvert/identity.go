package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/pkg/identity"
)

// identityCommand is "culvert identity".
func identityCommand() *cobra.Command {
	cmd := cli.Group(&cobra.Command{
		Use:   "identity",
		Short: "make and show identities",
	})
	cmd.AddCommand(identityNewCommand(), identityShowCommand())
	return cmd
}

// identityNewCommand is "culvert identity new".
func identityNewCommand() *cobra.Command {
	var out, public string
	cmd := &cobra.Command{
		Use:   "new -o FILE [--public FILE]",
		Short: "make a new identity and print its identifier",
		Long: `new makes a new identity and writes it to a private file, which only its owner
can read. It never overwrites a file. The last line that it prints is the
identifier alone.`,
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
			id, err := writeIdentity(out, public)
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
	return cmd
}

// writeIdentity makes an identity and writes its files, or none of them.
func writeIdentity(out, public string) (identity.Identifier, error) {
	if public != "" {
		if filepath.Clean(public) == filepath.Clean(out) {
			return identity.Identifier{}, cli.Usagef("-o and --public name the same file %s: choose two", out)
		}
		if _, err := os.Lstat(public); err == nil {
			return identity.Identifier{}, fmt.Errorf("writing identity file %s: it exists and is never overwritten: choose another name or move it away", public)
		}
	}
	id, err := identity.New(time.Now())
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

// identityShowCommand is "culvert identity show".
func identityShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show FILE",
		Short:   "print the identifier in a private or public identity file",
		Example: "  culvert identity show relay.key",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := identity.ReadPublicFile(args[0])
			if err != nil {
				return err
			}
			if err := h.CheckTime(time.Now(), 0); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "culvert: warning: %s: %v\n", args[0], err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), h.Identifier())
			return err
		},
	}
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
