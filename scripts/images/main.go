// Command images builds Culvert's container images without a container engine:
// one archive a platform, which docker and containerd load, and one of all
// platforms, as registries hold them. The same commit and the same Go give the
// same digests, and so does the same source with -version and -revision. Run it in the
// repository's root:
//
//	go run ./scripts/images -o bin/images
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/culvert-net/culvert/internal/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// run builds what args ask for, and prints each archive with its image's digest.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	dir := flags.String("o", "bin/images", "the folder for the archives")
	name := flags.String("name", "ghcr.io/culvert-net/culvert:dev", "the image's name and tag")
	archs := flags.String("arch", "amd64,arm64", "for which processors, joined by commas")
	var s source
	flags.StringVar(&s.version, "version", "", "what --version says (without it and -revision, what git says of this folder)")
	flags.StringVar(&s.revision, "revision", "", "the commit, which it says, too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s == (source{}) {
		var err error
		if s, err = describe(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "images: the version of the source is unknown, programs will say (devel): %v\n", err)
		}
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil { //nolint:gosec // images hold no secrets
		return err
	}
	var all []image.Image
	for _, arch := range strings.Split(*archs, ",") {
		img, err := build(ctx, arch, s)
		if err != nil {
			return fmt.Errorf("building for %s: %w", arch, err)
		}
		all = append(all, img)
		if err := archive(stdout, filepath.Join(*dir, "culvert-"+arch+".tar"), *name, img); err != nil {
			return err
		}
	}
	if len(all) == 1 {
		return nil
	}
	return archive(stdout, filepath.Join(*dir, "culvert.tar"), *name, all...)
}

// build makes the image that the Dockerfile makes: one static program under its
// four names.
func build(ctx context.Context, arch string, s source) (image.Image, error) {
	tmp, err := os.MkdirTemp("", "culvert-image-")
	if err != nil {
		return image.Image{}, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what is left there harms nobody
	file := filepath.Join(tmp, "culvert")
	// Of the folder and the repository nothing else may show in the program.
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "image", "-trimpath", "-buildvcs=false", "-gcflags="+gcflags, "-ldflags="+s.ldflags(), "-o", file, "./cmd/culvert") //nolint:gosec // the file's name is our own, and the flags are who calls
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return image.Image{}, err
	}
	program, err := os.ReadFile(file)
	if err != nil {
		return image.Image{}, err
	}
	return image.Image{
		Architecture: arch,
		User:         "65532:65532",
		Env:          []string{"PATH=/bin"},
		Cmd:          []string{"culvert", "--help"},
		Files: []image.File{
			{Path: "bin/culvert", Mode: 0o755, Body: program},
			{Path: "bin/inlet", Link: "culvert"},
			{Path: "bin/outlet", Link: "culvert"},
			{Path: "bin/relay", Link: "culvert"},
		},
	}, nil
}

// archive writes an archive beside its place first, so that none is ever half.
func archive(stdout io.Writer, path, name string, images ...image.Image) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".images-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // when it has its place, there is none of that name
	digest, err := image.Write(f, name, images...)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s %s %s\n", path, name, digest)
	return err
}
