package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// policyCommand is "culvert policy".
func policyCommand() *cobra.Command {
	cmd := cli.Group(&cobra.Command{
		Use:   "policy",
		Short: "ask policies what they would decide",
	})
	cmd.AddCommand(policyTestCommand())
	return cmd
}

// policyQuestion are the flags of "culvert policy test".
type policyQuestion struct {
	config, peer, action, service, target, to, now string
	attr                                           []string
}

// policyTestCommand is "culvert policy test".
func policyTestCommand() *cobra.Command {
	var q policyQuestion
	cmd := &cobra.Command{
		Use:   "test --config FILE --peer IDENTIFIER [flags]",
		Short: "say whether a peer would be allowed, and why not",
		Long: `test asks the policy in the settings file of an outlet or a relay as the running
program would, and prints the decision. The peer's attributes are taken as
given: no credential is looked at. Exit code 0 is allowed, 1 denied, and 2 that
there is no answer: the command line or the file is wrong.`,
		Example: `  culvert policy test --config outlet.yaml --peer IDENTIFIER --attr role=api --service orders-db
  culvert policy test --config relay.yaml --peer IDENTIFIER --action extend --to relay-b:4000
  culvert policy test --config outlet.yaml --peer IDENTIFIER --service orders-db --now 2026-01-05T09:00:00+01:00`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := q.decide()
			if err != nil {
				return &cli.UsageError{Err: err}
			}
			answer := "denied"
			if d.Allowed {
				answer = "allowed"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", answer, d.Reason); err != nil {
				return err
			}
			if !d.Allowed {
				return cli.ErrSilent
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&q.config, "config", "", "the settings `FILE` of an outlet or a relay")
	flags.StringVar(&q.peer, "peer", "", "the peer's `IDENTIFIER`")
	flags.StringArrayVar(&q.attr, "attr", nil, "an attribute of the peer, `NAME=VALUE`; repeat for several")
	flags.StringVar(&q.action, "action", "", "open (an outlet's, the default there), register, connect or extend, as `ACTION`")
	flags.StringVar(&q.service, "service", "", "open: the service's `NAME`")
	flags.StringVar(&q.target, "target", "", "connect: the wanted outlet's `IDENTIFIER`")
	flags.StringVar(&q.to, "to", "", "extend: the next relay's `HOST:PORT`")
	flags.StringVar(&q.now, "now", "", "when the peer asks, as `TIME` in RFC 3339 (default: now)")
	return cmd
}

// decide asks the file's policy. An error means that there is no answer.
func (q *policyQuestion) decide() (policy.Decision, error) {
	if q.config == "" || q.peer == "" {
		return policy.Decision{}, errors.New("name the settings file with --config FILE, and the peer with --peer IDENTIFIER")
	}
	r, err := q.request()
	if err != nil {
		return policy.Decision{}, err
	}
	report, err := config.Check(q.config, "", os.Environ())
	if err != nil {
		return policy.Decision{}, err
	}
	switch report.Kind {
	case config.KindOutlet:
		return askOutlet(report.Outlet, r)
	case config.KindRelay:
		return askRelay(report.Relay, r)
	}
	return policy.Decision{}, fmt.Errorf("%s is the file of an %s, which asks no policy: name that of an outlet or a relay", q.config, report.Kind)
}

// request returns what the flags ask.
func (q *policyQuestion) request() (*policy.Request, error) {
	r := &policy.Request{Action: policy.Action(q.action), Service: q.service, Now: time.Now()}
	var err error
	if r.Peer.ID, err = identity.ParseIdentifier(q.peer); err != nil {
		return nil, fmt.Errorf("--peer: %w: \"culvert identity show FILE\" prints it", err)
	}
	if r.Peer.Attr, err = parseAttributes(q.attr); err != nil {
		return nil, err
	}
	if q.now != "" {
		if r.Now, err = time.Parse(time.RFC3339, q.now); err != nil {
			return nil, fmt.Errorf("--now %q: want a time like 2026-01-05T09:00:00+01:00", q.now)
		}
	}
	if q.target != "" {
		if r.Target, err = identity.ParseIdentifier(q.target); err != nil {
			return nil, fmt.Errorf("--target: %w: \"culvert identity show FILE\" prints it", err)
		}
	}
	if q.to != "" {
		host, port, err := route.ParseAddress("tcp://" + strings.TrimPrefix(q.to, "tcp://"))
		if err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		r.To = route.Hop{Host: host, Port: port}.Address() // as a relay sees it
	}
	return r, nil
}

func askOutlet(cfg *config.Outlet, r *policy.Request) (policy.Decision, error) {
	if r.Action == "" {
		r.Action = policy.Open
	}
	p := app.NewOutletPolicy(cfg.Services)
	names := strings.Join(p.Services(), ", ")
	switch {
	case r.Action != policy.Open:
		return policy.Decision{}, fmt.Errorf("--action %q: an outlet decides about open only", r.Action)
	case r.To != "":
		return policy.Decision{}, errors.New("--to belongs to a relay's extend")
	case !r.Target.IsZero():
		return policy.Decision{}, errors.New("--target belongs to a relay's connect")
	case r.Service == "":
		return policy.Decision{}, fmt.Errorf("name the service with --service NAME: there are %s", names)
	case !p.Has(r.Service):
		return policy.Decision{}, fmt.Errorf("--service %q: the outlet has none of that name: there are %s", r.Service, names)
	}
	return p.Decide(r), nil
}

func askRelay(cfg *config.Relay, r *policy.Request) (policy.Decision, error) {
	const actions = "register, connect or extend"
	switch {
	case r.Action == "":
		return policy.Decision{}, errors.New("say what the peer wants to do with --action " + actions)
	case r.Action != policy.Register && r.Action != policy.Connect && r.Action != policy.Extend:
		return policy.Decision{}, fmt.Errorf("--action %q: a relay decides about %s", r.Action, actions)
	case r.Service != "":
		return policy.Decision{}, errors.New("--service belongs to an outlet's file: a relay does not see it")
	case r.Action == policy.Extend && r.To == "":
		return policy.Decision{}, errors.New("say where to be carried on to with --to HOST:PORT")
	case r.Action != policy.Extend && r.To != "":
		return policy.Decision{}, errors.New("--to belongs to --action extend")
	case r.Action != policy.Connect && !r.Target.IsZero():
		return policy.Decision{}, errors.New("--target belongs to --action connect")
	}
	p, err := app.NewRelayPolicy(cfg)
	if err != nil {
		return policy.Decision{}, err
	}
	return p.Decide(r), nil
}
