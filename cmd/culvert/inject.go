package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-net/culvert/internal/cli"
	"github.com/culvert-net/culvert/internal/inject"
)

// injectCommand is "culvert inject".
func injectCommand(stdin io.Reader) *cobra.Command {
	var file string
	var outlets []string
	d := inject.Defaults{}
	cmd := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "write inlets and outlets into Kubernetes manifests, as annotations ask",
		Long: `inject reads manifests of Kubernetes, YAML of several documents or JSON, and writes
them with an inlet or outlet beside the containers of each pod, or template of
pods, that has an annotation of culvert.dev (docs/inject.md). All else stays as it
is. A pod that has its sidecar already is not changed, unless its annotations, or
the flags, have.`,
		Example: `  culvert inject -f app.yaml | kubectl apply -f -
  culvert inject -f - --route tcp://relay:4000/IDENTIFIER --outlet orders-db=IDENTIFIER <app.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return cli.Usagef("name the manifest: -f FILE, or -f - for the standard input")
			}
			var err error
			if d.Outlets, err = outletFlags(outlets); err != nil {
				return err
			}
			in, err := inject.New(d)
			if err != nil {
				return &cli.UsageError{Err: err}
			}
			return injectFile(cmd, in, file, stdin)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&file, "file", "f", "", "read the manifests in `FILE`; -: the standard input")
	flags.StringVar(&d.Image, "set-image", inject.DefaultImage, "the sidecars' `IMAGE`")
	flags.StringVar(&d.PullPolicy, "image-pull-policy", "", "when it is pulled: Always, IfNotPresent or Never, as `POLICY` (default: what Kubernetes takes)")
	flags.StringArrayVar(&d.Routes, "route", nil, "a `ROUTE` of pods that have no annotation for it; repeat for several")
	flags.StringArrayVar(&outlets, "outlet", nil, "whose a service is, as `SERVICE=IDENTIFIER`, where the annotation does not say; repeat for several")
	flags.StringVar(&d.IdentitySecret, "identity-secret", "", "the Secret with identity.key of pods that have no annotation for it, by `NAME`")
	flags.StringArrayVar(&d.Authority, "authority", nil, "a `ROUTE` to the authority of pods that have no annotation for it; repeat for several")
	flags.StringVar(&d.Audience, "audience", "", "the `AUDIENCE` of tokens for the authority (default culvert)")
	flags.StringArrayVar(&d.Variables, "variables", nil, "the ConfigMap with variables of pods that have no annotation for it, by `NAME`; repeat for several")
	flags.StringVar(&d.CPURequest, "cpu-request", "", "the CPU that a sidecar asks for, as `QUANTITY` (default 100m)")
	flags.StringVar(&d.MemoryRequest, "memory-request", "", "the memory that a sidecar asks for, as `QUANTITY` (default 64Mi)")
	flags.StringVar(&d.MemoryLimit, "memory-limit", "", "the memory that a sidecar may have, as `QUANTITY` (default 512Mi)")
	return cmd
}

// outletFlags reads SERVICE=IDENTIFIER.
func outletFlags(texts []string) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range texts {
		service, id, ok := strings.Cut(text, "=")
		if !ok {
			return nil, cli.Usagef("--outlet %q: want SERVICE=IDENTIFIER", text)
		}
		if _, twice := all[service]; twice {
			return nil, cli.Usagef("--outlet: %s is there twice", service)
		}
		all[service] = id
	}
	return all, nil
}

// injectFile prints a manifest as it is to be, and tells what was done to it.
func injectFile(cmd *cobra.Command, in *inject.Injector, file string, stdin io.Reader) error {
	manifest, err := readManifest(file, stdin)
	if err != nil {
		return err
	}
	out, changes, err := in.Manifest(file, manifest)
	if err != nil {
		printFaults(cmd.ErrOrStderr(), err)
		return cli.ErrSilent
	}
	if _, err := cmd.OutOrStdout().Write(out); err != nil {
		return err
	}
	for _, c := range changes {
		what := "injected " + strings.Join(c.Sidecars, " and ")
		if len(c.Sidecars) == 0 {
			what = "took the sidecars out, which no annotation asks for"
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "culvert: %s: %s\n", c.Object, what)
		for _, w := range c.Warnings {
			fmt.Fprintf(cmd.ErrOrStderr(), "culvert: %s: warning: %s\n", c.Object, w)
		}
	}
	if len(changes) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "culvert: %s: nothing to do: no pod asks for a sidecar that it has not (annotation %s or %s)\n", file, inject.Inlet, inject.Outlet)
	}
	return nil
}

func readManifest(file string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read from
		in = f
	}
	text, err := inject.ReadManifest(in)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s", file), err)
	}
	return text, nil
}
