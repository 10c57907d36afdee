// Command inlet accepts plain TCP beside an application and carries it to an
// outlet. It holds no logic: that is in internal/app.
package main

import (
	"context"
	"io"
	"os"

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
		Kind:  config.KindInlet,
		Short: "carry local TCP connections to an outlet, encrypted end to end",
		Long: `inlet accepts plain TCP connections from local applications and carries each,
encrypted end to end, to the service behind an outlet, through any number of
relays.`,
		Example: `  inlet --config inlet.yaml
  inlet --identity inlet.key --listen 127.0.0.1:15432 --service orders-db \
        --outlet IDENTIFIER --route tcp://relay-a:4000/IDENTIFIER
  inlet --config inlet.yaml --health orders-db`,
		Serve: cli.Serving(config.KindInlet, config.LoadInlet, app.NewInlet),
	}.Run(ctx, args, stdout, stderr)
}
