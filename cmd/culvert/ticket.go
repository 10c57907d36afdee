package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/pkg/credential"
)

// ticketCommand is "culvert ticket".
func ticketCommand() *cobra.Command {
	cmd := cli.Group(&cobra.Command{
		Use:   "ticket",
		Short: "make, list and revoke tickets, by which new machines enrol",
	})
	cmd.AddCommand(ticketCreateCommand(), ticketListCommand(), ticketRevokeCommand())
	return cmd
}

// ticketCreateCommand is "culvert ticket create".
func ticketCreateCommand() *cobra.Command {
	var attr []string
	var r authority.TicketRequest
	cmd := &cobra.Command{
		Use:   "create --config FILE [--attr NAME=VALUE]... [--uses N] [--expires-in TIME]",
		Short: "make a ticket and print it",
		Long: `create prints one word that holds all a new inlet, outlet or relay needs to
become a member of the authority: who that is, how to get there, and a secret. It
is a password: hand it over like one. The authority keeps a hash of it, so that
it is printed this once.`,
		Example: "  culvert ticket create --config authority.yaml --attr role=api --uses 1 --expires-in 10m",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.Attributes, err = parseAttributes(attr); err != nil {
				return &cli.UsageError{Err: err}
			}
			if r.Uses < 1 || r.ExpiresIn <= 0 {
				return cli.Usagef("--uses and --expires-in: want more than none")
			}
			return withAuthority(cmd, func(ctx context.Context, s admin.Service) error {
				t, info, err := s.CreateTicket(ctx, r)
				if err != nil {
					return err
				}
				text, err := t.Encode()
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "ticket %s: %s, expires at %s\n", info.ID, showAttributes(info.Attributes), info.Expires.Format(time.RFC3339))
				return printLine(cmd.OutOrStdout(), "%s", text)
			})
		},
	}
	configFlag(cmd)
	cmd.Flags().StringArrayVar(&attr, "attr", nil, "an attribute of the members that it makes, `NAME=VALUE`; repeat for several")
	cmd.Flags().IntVar(&r.Uses, "uses", authority.DefaultTicketUses, "how many members it makes, as `N`")
	cmd.Flags().DurationVar(&r.ExpiresIn, "expires-in", authority.DefaultTicketTime, "it is worth nothing after this `TIME`")
	return cmd
}

// ticketListCommand is "culvert ticket list".
func ticketListCommand() *cobra.Command {
	return listCommand("list tickets, without their secrets", "print one JSON object a line", tickets, printTicket)
}

// tickets are all tickets of an authority, the oldest first.
func tickets(ctx context.Context, s admin.Service) iter.Seq2[authority.TicketInfo, error] {
	return func(yield func(authority.TicketInfo, error) bool) {
		list, err := s.Tickets(ctx)
		if err != nil {
			yield(authority.TicketInfo{}, err)
			return
		}
		slices.SortFunc(list, func(a, b authority.TicketInfo) int { return a.Created.Compare(b.Created) })
		for _, t := range list {
			if !yield(t, nil) {
				return
			}
		}
	}
}

func printTicket(w io.Writer, t authority.TicketInfo, asJSON bool) error {
	state := "open"
	switch now := time.Now(); {
	case !t.Revoked.IsZero():
		state = "revoked"
	case !now.Before(t.Expires):
		state = "expired"
	case t.Used >= t.Uses:
		state = "used up"
	}
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			ID         string                `json:"id"`
			State      string                `json:"state"`
			Attributes credential.Attributes `json:"attributes"`
			Uses       int                   `json:"uses"`
			Used       int                   `json:"used"`
			Created    time.Time             `json:"created"`
			Expires    time.Time             `json:"expires"`
		}{t.ID.String(), state, t.Attributes, t.Uses, t.Used, t.Created, t.Expires})
	}
	return printLine(w, "%s  %-8s  used %d of %d  expires %s  %s",
		t.ID, state, t.Used, t.Uses, t.Expires.Format(time.RFC3339), showAttributes(t.Attributes))
}

// ticketRevokeCommand is "culvert ticket revoke".
func ticketRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke --config FILE ID...",
		Short: "make tickets worthless; who was enrolled by them stays a member",
		Args:  someArguments("the ids of tickets, which \"culvert ticket list\" prints"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids []credential.TicketID
			for _, text := range args {
				id, err := credential.ParseTicketID(text)
				if err != nil {
					// It may be a ticket, which is not to be shown.
					return cli.Usagef("%w: want what \"culvert ticket list\" prints first", err)
				}
				ids = append(ids, id)
			}
			return withAuthority(cmd, func(ctx context.Context, s admin.Service) error {
				for _, id := range ids {
					if err := s.RevokeTicket(ctx, id); err != nil {
						return err
					}
					if err := printLine(cmd.OutOrStdout(), "revoked ticket %s", id); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	configFlag(cmd)
	return cmd
}
