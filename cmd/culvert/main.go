// Command culvert is the operator's tool: it makes and shows identities, checks
// settings, asks policies, watches what runs, and shows the whole system at work.
//
// Under the name inlet, outlet or relay, by a link, it is that program: images
// hold all four as one file.
package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	_ "time/tzdata" // for policies that speak of a time zone, in images that have none

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/daemon"
)

func main() {
	ctx := context.Background()
	if d, ok := daemon.Named(filepath.Base(os.Args[0])); ok {
		os.Exit(d.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := cli.Group(&cobra.Command{
		Use:   "culvert",
		Short: "the operator's tool of Culvert",
		Long: `culvert makes and shows identities, checks settings for the commands inlet,
outlet and relay, asks their policies, watches them as they run, measures the ways
between them, and shows all of them at work. It is the authority, too, that says who
is who, and what speaks to one.`,
	})
	root.AddCommand(identityCommand(), checkCommand(), policyCommand(), statusCommand(), pingCommand(),
		authorityCommand(stdout, stderr), ticketCommand(), revokeCommand(),
		injectCommand(os.Stdin), webhookCommand(stdout, stderr))
	root.AddCommand(workstationCommands()...)
	return cli.Execute(ctx, root, args, stdout, stderr)
}
