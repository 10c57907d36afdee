package bench

import "runtime"

// ShareProcessors leaves half of the processors to the path's processes: the
// load takes no more than the rest, so that it costs the same whatever it
// waits for. restore takes it back.
func ShareProcessors() (restore func()) {
	before := runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
	return func() { runtime.GOMAXPROCS(before) }
}
