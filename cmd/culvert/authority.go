package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// authorityCommand is "culvert authority".
func authorityCommand(stdout, stderr io.Writer) *cobra.Command {
	cmd := cli.Daemon{
		Kind:  config.KindAuthority,
		Short: "issue credentials, take tickets and revoke; or look after the store",
		Long: `authority says of identities what they are: it enrols inlets, outlets and relays
by tickets or Kubernetes tokens, issues them credentials that hold for an hour,
and tells them what is revoked. It is reached like an outlet: it registers at
relays, or accepts members directly.`,
		Example: `  culvert authority --config authority.yaml
  culvert authority --config authority.yaml --health`,
		Serve: cli.Serving(config.KindAuthority, config.LoadAuthority, app.NewAuthority),
	}.Command(stdout, stderr)
	cmd.AddCommand(authorityListCommand(), authorityBackupCommand(), authorityRestoreCommand())
	return cmd
}

// authorityListCommand is "culvert authority list".
func authorityListCommand() *cobra.Command {
	return listCommand("list the members: who they are, how they were enrolled, and their credentials",
		"print one JSON object a line, with the serials of credentials", members, printMember)
}

// members are all members of an authority, page by page.
func members(ctx context.Context, s admin.Service) iter.Seq2[authority.MemberInfo, error] {
	return func(yield func(authority.MemberInfo, error) bool) {
		for after := (identity.Identifier{}); ; {
			page, err := s.Members(ctx, after, authority.MaxPage)
			if err != nil {
				yield(authority.MemberInfo{}, err)
				return
			}
			for _, m := range page {
				if !yield(m, nil) {
					return
				}
				after = m.Identifier
			}
			if len(page) < authority.MaxPage {
				return
			}
		}
	}
}

func printMember(w io.Writer, m authority.MemberInfo, asJSON bool) error {
	by := m.How + " " + m.Subject
	if m.How == authority.ByTicket {
		by = m.How + " " + m.Ticket.String()
	}
	if !asJSON {
		// As tickets are listed: who, how, until when, and what they give last.
		return printLine(w, "%s  by %s  renewed %s  expires %s  %s", m.Identifier, by,
			m.Renewed.Format(time.RFC3339), m.NotAfter.Format(time.RFC3339), showAttributes(m.Attributes))
	}
	serials := []string{}
	for _, s := range m.Serials {
		serials = append(serials, s.String())
	}
	return json.NewEncoder(w).Encode(struct {
		Identifier identity.Identifier   `json:"identifier"`
		Attributes credential.Attributes `json:"attributes"`
		By         string                `json:"by"`
		Enrolled   time.Time             `json:"enrolled"`
		Renewed    time.Time             `json:"renewed"`
		NotAfter   time.Time             `json:"not_after"`
		Serials    []string              `json:"serials"` // of credentials that may hold, the newest last
	}{m.Identifier, m.Attributes, by, m.Enrolled, m.Renewed, m.NotAfter, serials})
}

// authorityBackupCommand is "culvert authority backup".
func authorityBackupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup --config FILE TO",
		Short: "write the store to a new file, while the authority runs or not",
		Long: `backup writes the store as it is at one moment to a new file, reads all of it
again, and only then gives it its name. It holds no key: back up the identity
file, too.

With - as TO it prints the backup, made and read beside the store before that: what
was printed is whole where the exit code is 0.`,
		Example: `  culvert authority backup --config authority.yaml authority.backup
  kubectl exec authority-0 -- culvert authority backup --config /etc/culvert/authority.yaml - >authority.backup`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, owner, err := loadOwner(cmd)
			if err != nil {
				return err
			}
			write := func(path string) error {
				return withAuthority(cmd, func(ctx context.Context, s admin.Service) error {
					return authority.WriteBackup(path, owner, func(w io.Writer) error { return s.Backup(ctx, w) })
				})
			}
			if args[0] == "-" {
				return printBackup(cmd.OutOrStdout(), filepath.Dir(cfg.Store), write)
			}
			if err := write(args[0]); err != nil {
				return err
			}
			return printLine(cmd.OutOrStdout(), "wrote a backup of %s to %s", cfg.Store, args[0])
		},
	}
	configFlag(cmd)
	return cmd
}

// printBackup prints what write has written to a file, which it makes in a folder of its own
// in dir and removes.
func printBackup(stdout io.Writer, dir string, write func(path string) error) error {
	own, err := os.MkdirTemp(dir, ".backup-*") // mode 0700
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(own) }() // what cannot be removed is whole, and its owner's alone
	path := filepath.Join(own, "store")
	if err := write(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// It is read while it has no name: who is killed by a reader that goes leaves nothing.
	_ = os.RemoveAll(own)
	if _, err := io.Copy(stdout, f); err != nil {
		return fmt.Errorf("printing the backup: %w", err)
	}
	return nil
}

// authorityRestoreCommand is "culvert authority restore".
func authorityRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore --config FILE FROM",
		Short: "make a backup the store; the authority must not run",
		Long: `restore checks a backup, and makes it the store. The store that was there is kept
beside it. What was enrolled and revoked after the backup was made is lost: who
was enrolled has to be so again, and what was revoked has to be revoked again,
before members take a list of this authority.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, owner, err := loadOwner(cmd)
			if err != nil {
				return err
			}
			kept, err := authority.Restore(cfg.Store, args[0], owner, time.Now())
			if errors.Is(err, authority.ErrInUse) {
				err = fmt.Errorf("%w: stop the authority first", err)
			}
			if err != nil {
				return err
			}
			if kept != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "culvert: what was the store is kept as %s\n", kept)
			}
			return printLine(cmd.OutOrStdout(), "restored %s from %s", cfg.Store, args[0])
		},
	}
	configFlag(cmd)
	return cmd
}
