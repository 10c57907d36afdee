package cli

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// The first signal ends the context, the second calls for an end at once.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		var second []os.Signal
		ctx, stop := watch(t.Context(), signals, func(s os.Signal) { second = append(second, s) })
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatalf("without a signal: %v", ctx.Err())
		}
		signals <- os.Interrupt
		<-ctx.Done()
		if cause := context.Cause(ctx); cause == nil || !strings.Contains(cause.Error(), "signal: interrupt") || len(second) > 0 {
			t.Errorf("after the first: cause %v, second %v", cause, second)
		}
		signals <- os.Kill
		synctest.Wait()
		if len(second) != 1 || second[0] != os.Kill {
			t.Errorf("after the second: %v, want %v", second, os.Kill)
		}
		stop()
	})
}

// stop ends the watching, whatever has come by then, and the context.
func TestWatchStops(t *testing.T) {
	for _, n := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			ctx, stop := watch(t.Context(), signals, func(os.Signal) { t.Error("a second signal was seen") })
			if n > 0 {
				signals <- os.Interrupt
				<-ctx.Done()
			}
			stop()
			if ctx.Err() == nil {
				t.Error("the context goes on")
			}
			signals <- os.Interrupt
			synctest.Wait()
		})
	}
}
