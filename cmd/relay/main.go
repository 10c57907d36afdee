// Command relay joins inlets to outlets and sees ciphertext only. It holds no
// logic: that is in internal/app.
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
		Kind:  config.KindRelay,
		Short: "join inlets to outlets without seeing what they say",
		Long: `relay is where outlets register and inlets find them. It moves bytes that only
the two ends can decrypt. It serves nobody who is not listed.

Settings come from a YAML file, from CULVERT_ variables named like the flags
(CULVERT_LISTEN; lists are separated by white space) and from flags; of these
the last one counts.`,
		Example: `  relay --config relay.yaml
  relay --identity relay.key --listen 0.0.0.0:4000 --register IDENTIFIER --connect IDENTIFIER
  relay --config relay.yaml --health`,
		Serve: serve,
	}.Run(ctx, args, stdout, stderr)
}

// serve loads the settings and runs the relay until ctx ends.
func serve(ctx context.Context, src config.Source, stderr io.Writer) error {
	cfg, err := config.LoadRelay(src)
	if err != nil {
		return err
	}
	o, err := obs.New(obs.Config{Command: "relay", LogFormat: cfg.LogFormat, LogLevel: cfg.LogLevel, LogOutput: stderr})
	if err != nil {
		return err
	}
	relay, err := app.NewRelay(cfg, o)
	if err != nil {
		return err
	}
	return relay.Run(ctx)
}
