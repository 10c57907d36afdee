package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Signals returns a context that ends at the first SIGTERM or SIGINT, which
// asks for a clean stop. The second ends the process at once, with a message
// and ExitFailure. stop ends the watching and waits for that.
func Signals(ctx context.Context, name string, stderr io.Writer) (_ context.Context, stop func()) {
	ch := make(chan os.Signal, 2) // neither signal may be lost
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	ctx, end := watch(ctx, ch, func(s os.Signal) {
		said := make(chan struct{})
		go func() { // ends with the process, if whoever reads stderr has stopped
			defer close(said)
			fmt.Fprintf(stderr, "%s: a second signal (%v): ending at once\n", name, s)
		}()
		select {
		case <-said:
		case <-time.After(100 * time.Millisecond):
		}
		os.Exit(ExitFailure)
	})
	return ctx, func() {
		signal.Stop(ch)
		end()
	}
}

// watch ends ctx at the first signal and calls second at the next.
func watch(ctx context.Context, signals <-chan os.Signal, second func(os.Signal)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("signal: %v", s))
		case <-done:
			return
		}
		select {
		case s := <-signals:
			second(s)
		case <-done:
		}
	})
	return ctx, func() {
		close(done)
		wg.Wait()
		cancel(nil)
	}
}

// Hangups calls f for each SIGHUP, or once for several that come together. stop
// ends that and waits for the last call.
func Hangups(f func()) (stop func()) {
	ch := make(chan os.Signal, 1) // one that waits stands for all that come meanwhile
	signal.Notify(ch, syscall.SIGHUP)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ch:
				f()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(ch)
		close(done)
		wg.Wait()
	}
}
