// Command relay joins inlets to outlets and sees ciphertext only. It holds no
// logic: that is in internal/app.
package main

import (
	"context"
	"io"
	"os"

	"github.com/culvert-net/culvert/internal/daemon"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return daemon.Relay().Run(ctx, args, stdout, stderr)
}
