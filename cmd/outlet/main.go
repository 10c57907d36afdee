// Command outlet offers services to inlets: it registers at relays or listens,
// and dials the services' targets. It holds no logic: that is in internal/app.
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
		Kind:  config.KindOutlet,
		Short: "offer TCP services to inlets, encrypted end to end",
		Long: `outlet offers TCP services to the inlets that it is told to allow. It
registers at relays, or accepts inlets directly, and dials a service's target
for each connection.`,
		Example: `  outlet --config outlet.yaml
  outlet --identity outlet.key --relay tcp://relay-a:4000/IDENTIFIER \
         --service orders-db=127.0.0.1:5432 --allow IDENTIFIER
  outlet --config outlet.yaml --health`,
		Serve: cli.Serving(config.KindOutlet, config.LoadOutlet, app.NewOutlet),
	}.Run(ctx, args, stdout, stderr)
}
