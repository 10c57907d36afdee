// Package wait owns the wait that a context can end.
package wait

import (
	"context"
	"time"
)

// Sleep waits for d or ctx's end, and reports whether it was d.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
