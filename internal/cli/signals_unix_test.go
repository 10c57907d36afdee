//go:build unix

package cli

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// SIGTERM and SIGINT both ask for a clean stop.
func TestSignals(t *testing.T) {
	guard := make(chan os.Signal, 2) // whatever happens, they do not end the test
	signal.Notify(guard, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(guard)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		ctx, stop := Signals(t.Context(), "relay", io.Discard)
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Errorf("%v does not end the context", s)
		}
		stop()
	}
}
