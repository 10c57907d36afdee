// Package daemon has the inlet, the outlet and the relay as commands, for the
// programs of these names and for the one program that images hold under all of
// them. What they do stands in internal/app.
package daemon

import (
	_ "time/tzdata" // for policies that speak of a time zone, in images that have none

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
)

// Named returns the command that a program called name is, and whether there is
// one.
func Named(name string) (cli.Daemon, bool) {
	switch config.Kind(name) {
	case config.KindInlet:
		return Inlet(), true
	case config.KindOutlet:
		return Outlet(), true
	case config.KindRelay:
		return Relay(), true
	default: // the authority is a command of culvert
		return cli.Daemon{}, false
	}
}

// Inlet returns the command that accepts plain TCP beside an application and
// carries it to an outlet.
func Inlet() cli.Daemon {
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
	}
}

// Outlet returns the command that offers services to inlets: it registers at relays
// or listens, and dials the services' targets.
func Outlet() cli.Daemon {
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
	}
}

// Relay returns the command that joins inlets to outlets and sees ciphertext only.
func Relay() cli.Daemon {
	return cli.Daemon{
		Kind:  config.KindRelay,
		Short: "join inlets to outlets without seeing what they say",
		Long: `relay is where outlets register and inlets find them. It moves bytes that only
the two ends can decrypt. It serves nobody who is not listed.`,
		Example: `  relay --config relay.yaml
  relay --identity relay.key --listen 0.0.0.0:4000 --register IDENTIFIER --connect IDENTIFIER
  relay --config relay.yaml --health`,
		Serve: cli.Serving(config.KindRelay, config.LoadRelay, app.NewRelay),
	}
}
