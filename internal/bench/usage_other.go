//go:build !linux

package bench

import "time"

// cpuTime is not known here.
func cpuTime([]int) (time.Duration, bool) { return 0, false }

// residentBytes is not known here.
func residentBytes([]int) (int64, bool) { return 0, false }
