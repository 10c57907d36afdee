//go:build !linux

package pump

const pipeSize = largeSize

// Pipes is a store of pipes for [Splice], of which this system has no use.
type Pipes struct{}

// Close does nothing.
func (*Pipes) Close() {}

type kernel struct{}

func (*direction) initKernel() error { return nil }

// move carries one chunk; no bytes and no error are src's end.
func (d *direction) move() (int, Op, error) { return d.copyChunk() }
