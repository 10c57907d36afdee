package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/inject"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/webhook"
)

// webhookCommand is "culvert webhook".
func webhookCommand(stdout, stderr io.Writer) *cobra.Command {
	cmd := cli.Daemon{
		Kind:  config.KindWebhook,
		Short: "give pods their inlets and outlets, as an admission webhook; or make its certificate",
		Long: `webhook is a mutating admission webhook of Kubernetes: it does to pods what inject
does to manifests (docs/inject.md). It asks no API server, and needs no
permission in the cluster. Its certificate is read again when it changes.`,
		Example: `  culvert webhook --config webhook.yaml
  culvert webhook --config webhook.yaml --health
  culvert webhook certificate certificate/`,
		Serve: serveWebhook,
	}.Command(stdout, stderr)
	cmd.AddCommand(webhookCertificateCommand())
	return cmd
}

// serveWebhook serves until ctx ends.
func serveWebhook(ctx context.Context, src config.Source, stderr io.Writer) error {
	cfg, err := config.LoadWebhook(src)
	if err != nil {
		return err
	}
	in, err := inject.New(sidecarDefaults(&cfg.Sidecar))
	if err != nil {
		return cfg.Fault("sidecar", err)
	}
	o, err := obs.New(obs.Config{Command: string(config.KindWebhook), LogFormat: cfg.LogFormat, LogLevel: cfg.LogLevel, LogOutput: stderr})
	if err != nil {
		return err
	}
	s, err := webhook.New(webhook.Config{
		Addr: cfg.Listen.String(), Certificate: cfg.Certificate, Key: cfg.Key, Injector: in, DrainTimeout: cfg.DrainTimeout,
	}, o)
	if err != nil {
		return err
	}
	if err := s.Listen(ctx); err != nil {
		return cfg.ListenError("listen", err)
	}
	endpoints, err := o.Listen(ctx, obs.Endpoints{Metrics: cfg.Metrics.String(), MetricsWhere: cfg.Where("metrics")})
	if err != nil {
		_ = s.Close() // it was not served
		return err
	}
	if a := endpoints.MetricsAddr(); a != nil {
		o.Log.Info("serving metrics", zap.Stringer("address", a))
	}
	defer cli.Hangups(s.Reload)()
	return runWebhook(ctx, s, endpoints, o)
}

// runWebhook serves reviews, and metrics and the log until after the last of them. The
// first to fail ends the others.
func runWebhook(ctx context.Context, s *webhook.Server, endpoints *obs.Server, o *obs.Obs) error {
	around, end := context.WithCancel(context.WithoutCancel(ctx))
	serving, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	var all sync.WaitGroup
	all.Go(func() { o.ServeLog(around) })
	all.Go(func() {
		defer stop()
		failed = endpoints.Serve(around)
	})
	err := s.Run(serving)
	end()
	all.Wait()
	return errors.Join(err, failed)
}

// sidecarDefaults are settings as pods get them.
func sidecarDefaults(s *config.Sidecar) inject.Defaults {
	d := inject.Defaults{
		Image: s.Image, PullPolicy: s.ImagePullPolicy, IdentitySecret: s.IdentitySecret, Audience: s.Audience, Variables: s.Variables,
		CPURequest: s.CPURequest, MemoryRequest: s.MemoryRequest, MemoryLimit: s.MemoryLimit, Outlets: map[string]string{},
	}
	for _, r := range s.Routes {
		d.Routes = append(d.Routes, r.String())
	}
	for _, r := range s.Authority {
		d.Authority = append(d.Authority, r.String())
	}
	for service, id := range s.Outlets {
		d.Outlets[service] = id.String()
	}
	return d
}

// webhookCertificateCommand is "culvert webhook certificate".
func webhookCertificateCommand() *cobra.Command {
	order := webhook.Order{}
	cmd := &cobra.Command{
		Use:   "certificate FOLDER",
		Short: "make the certificate that a webhook serves with, and the authority that API servers trust",
		Long: `certificate makes in a folder, where they are missing, an authority (ca.crt, ca.key)
for the webhook's names alone, and the webhook's certificate of it (tls.crt,
tls.key), which holds for a year. Run it again to renew: it does so when less than
a third of that year is left. tls.crt and tls.key become the webhook's Secret, ca.crt
the caBundle of its configuration; ca.key stays in the folder.`,
		Example: `  culvert webhook certificate certificate/
  culvert webhook certificate certificate/ --dns webhook.tools.svc --new-authority`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one folder")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			issued, err := webhook.Issue(args[0], order, time.Now())
			if err != nil {
				return err
			}
			return printIssued(cmd.OutOrStdout(), args[0], issued)
		},
	}
	cmd.Flags().StringArrayVar(&order.Names, "dns", []string{"webhook.culvert.svc"}, "the `NAME` by which API servers reach the webhook, SERVICE.NAMESPACE.svc; repeat for several")
	cmd.Flags().BoolVar(&order.Renew, "renew", false, "make another certificate, however long the one that is there holds")
	cmd.Flags().BoolVar(&order.NewAuthority, "new-authority", false, "make another authority, too; the one before stays trusted until it expires")
	return cmd
}

func printIssued(w io.Writer, dir string, issued *webhook.Issued) error {
	if issued.Authority {
		if err := printLine(w, "made an authority: %s, %s", filepath.Join(dir, webhook.AuthorityFile), filepath.Join(dir, webhook.AuthorityKeyFile)); err != nil {
			return err
		}
	}
	what := "kept"
	if issued.Server {
		what = "made"
	}
	return printLine(w, "%s the certificate: %s, which holds until %s", what, filepath.Join(dir, webhook.ServerFile), issued.NotAfter.UTC().Format(time.RFC3339))
}
