package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
)

const (
	// tidyEvery is how often a process looks whether it has become quiet, tidyQuiet
	// how much it may allocate in that time and be quiet, and tidyWorth how much it
	// has to have allocated since it last tidied up for that to be worth the work.
	tidyEvery = 5 * time.Second
	tidyQuiet = 1 << 20
	tidyWorth = 8 << 20
)

// tidy gives memory back to the system each time the process has become quiet
// after a load, until ctx ends. The runtime collects when the heap has doubled
// or after two minutes, whichever comes first: a process that falls quiet would
// keep for minutes, and partly for good, what its busiest moment has needed.
func tidy(ctx context.Context) {
	var before, last uint64 // allocated in all when it last tidied up, and looked
	for wait.Sleep(ctx, tidyEvery) {
		now := allocated()
		quiet := now-last < tidyQuiet
		last = now
		if !quiet || now-before < tidyWorth {
			continue
		}
		returnMemory()
		last = allocated()
		before = last
	}
}

// returnMemory collects twice: pools give up what they hold in the second
// collection, and each halves stacks that have become too large.
func returnMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// allocated returns how many bytes the process has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
