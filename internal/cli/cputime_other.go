//go:build !unix

package cli

import "time"

// cpuTime is not known here: GOMAXPROCS stays as the runtime sets it.
func cpuTime() (time.Duration, bool) { return 0, false }
