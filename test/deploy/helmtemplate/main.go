// Command helmtemplate prints what a chart makes of the values at its standard input,
// for tests that apply it where there is no Helm: helmtemplate CHART <values.yaml
package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"

	"github.com/culvert-net/culvert/test/deploy/chart"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "helmtemplate:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("name the chart's folder")
	}
	c, err := loader.LoadDir(args[0])
	if err != nil {
		return err
	}
	values, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	files, err := chart.Render(c, string(values))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			fmt.Fprintf(out, "---\n%s\n", files[name])
		}
	}
	return nil
}
