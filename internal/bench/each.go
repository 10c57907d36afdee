package bench

import (
	"context"
	"sync"
	"sync/atomic"
)

// each calls f for 0 to n-1, at most wide at once, until one fails or ctx ends,
// and returns the first error when all calls have returned.
func each(ctx context.Context, n, wide int, f func(int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, wide) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
