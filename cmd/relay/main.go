// Command relay joins inlets to outlets and sees ciphertext only. It holds no
// logic: that is in internal/app.
package main

import (
	"context"
	"io"
	"os"
	_ "time/tzdata" // for policies that speak of a time zone, in images that have none

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return cli.Daemon{
		Kind:  config.KindRelay,
		Short: "join inlets to outlets without seeing what they say",
		Long: `relay is where outlets register and inlets find them. It moves bytes that only
the two ends can decrypt. It serves nobody who is not listed.`,
		Example: `  relay --config relay.yaml
  relay --identity relay.key --listen 0.0.0.0:4000 --register IDENTIFIER --connect IDENTIFIER
  relay --config relay.yaml --health`,
		Serve: cli.Serving(config.KindRelay, config.LoadRelay, app.NewRelay),
	}.Run(ctx, args, stdout, stderr)
}
