// Command outlet offers services to inlets: it registers at relays or listens,
// and dials the services' targets. It holds no logic: that is in internal/app.
package main

import (
	"context"
	"io"
	"os"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
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
for each connection.

Settings come from a YAML file, from CULVERT_ variables named like the flags
(CULVERT_RELAY; lists are separated by white space) and from flags; of these
the last one counts.`,
		Example: `  outlet --config outlet.yaml
  outlet --identity outlet.key --relay tcp://relay-a:4000/IDENTIFIER \
         --service orders-db=127.0.0.1:5432 --allow IDENTIFIER
  outlet --config outlet.yaml --health`,
		Serve: serve,
	}.Run(ctx, args, stdout, stderr)
}

// serve loads the settings and runs the outlet until ctx ends.
func serve(ctx context.Context, src config.Source, stderr io.Writer) error {
	cfg, err := config.LoadOutlet(src)
	if err != nil {
		return err
	}
	o, err := obs.New(obs.Config{Command: "outlet", LogFormat: cfg.LogFormat, LogLevel: cfg.LogLevel, LogOutput: stderr})
	if err != nil {
		return err
	}
	outlet, err := app.NewOutlet(cfg, o)
	if err != nil {
		return err
	}
	return outlet.Run(ctx)
}
