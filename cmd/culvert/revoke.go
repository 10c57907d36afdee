package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// revokeAtOnce is how many revocations go into one list, and one request.
const revokeAtOnce = 10_000

// revokeCommand is "culvert revoke".
func revokeCommand() *cobra.Command {
	var file string
	var r authority.Revocation
	cmd := &cobra.Command{
		Use:   "revoke --config FILE IDENTIFIER|SERIAL...",
		Short: "take identities or credentials back",
		Long: `revoke says of identifiers that their keys are in the wrong hands, for ever:
nothing that they do is allowed any more by those who trust this authority. Of a
credential, named by its serial, it says that it alone does not count; the member
can renew. What is revoked is on its way to all members that are connected when
the command ends; their streams end within seconds.`,
		Example: "  culvert revoke --config authority.yaml --reason \"laptop stolen\" IDENTIFIER",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				more, err := readWords(file, cmd.InOrStdin())
				if err != nil {
					return err
				}
				args = append(args, more...)
			}
			if len(args) == 0 {
				return cli.Usagef("name identifiers or serials of credentials, or a file of them with --file")
			}
			if err := sortRevoked(args, &r); err != nil {
				return err
			}
			return withAuthority(cmd, func(ctx context.Context, s admin.Service) error {
				return revokeAll(ctx, cmd.OutOrStdout(), s, r)
			})
		},
	}
	configFlag(cmd)
	cmd.Flags().StringVar(&file, "file", "", "revoke what is in this `FILE`, too, one in a line; - is the standard input")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, as `TEXT`, which the authority's store keeps")
	cmd.Flags().BoolVar(&r.Own, "end-the-authority", false, "the authority's own identifier is meant: nothing that it has signed counts any more, for ever")
	return cmd
}

// readWords returns the words of a file; a line that begins with # is none.
func readWords(file string, stdin io.Reader) (words []string, err error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	s := bufio.NewScanner(in)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			words = append(words, line)
		}
		if len(words) > credential.MaxRevocations {
			return nil, fmt.Errorf("reading %s: more than %d lines", file, credential.MaxRevocations)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return words, nil
}

// sortRevoked tells identifiers from serials.
func sortRevoked(words []string, r *authority.Revocation) error {
	for i, word := range words {
		id, notID := identity.ParseIdentifier(word)
		serial, notSerial := credential.ParseSerial(word)
		switch {
		case notID == nil:
			r.Identifiers = append(r.Identifiers, id)
		case notSerial == nil:
			r.Serials = append(r.Serials, serial)
		case len(word) < 40:
			return cli.Usagef("value %d: %w: want an identifier (52 characters) or a credential's serial (32)", i+1, notSerial)
		default:
			return cli.Usagef("value %d: %w: want an identifier (52 characters) or a credential's serial (32)", i+1, notID)
		}
	}
	return nil
}

// revokeAll revokes in parts that requests can hold.
func revokeAll(ctx context.Context, w io.Writer, s authority.Operator, all authority.Revocation) error {
	var sum authority.Revoked
	for len(all.Identifiers)+len(all.Serials) > 0 {
		part := all
		part.Identifiers = all.Identifiers[:min(len(all.Identifiers), revokeAtOnce)]
		part.Serials = all.Serials[:min(len(all.Serials), revokeAtOnce-len(part.Identifiers))]
		done, err := s.Revoke(ctx, part)
		if err != nil {
			if sum.Added > 0 {
				err = errors.Join(fmt.Errorf("after %d were revoked by list %d", sum.Added, sum.Number), err)
			}
			return err
		}
		sum = authority.Revoked{Number: done.Number, Added: sum.Added + done.Added, Already: sum.Already + done.Already}
		all.Identifiers, all.Serials = all.Identifiers[len(part.Identifiers):], all.Serials[len(part.Serials):]
	}
	already := ""
	if sum.Already > 0 {
		already = fmt.Sprintf(" (%d were before)", sum.Already)
	}
	return printLine(w, "revoked %d%s: list %d", sum.Added, already, sum.Number)
}
