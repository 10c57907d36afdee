package bench

import "time"

// A usage is the processor time that a path's processes have taken so far.
type usage struct {
	known, partKnown bool
	cpu, part        time.Duration
}

func (p *Path) usage() (u usage) {
	if p.Processes != nil {
		u.cpu, u.known = cpuTime(p.Processes())
	}
	if p.Part != nil {
		u.part, u.partKnown = cpuTime(p.Part())
	}
	return u
}

// sub returns what was taken since before.
func (u usage) sub(before usage) usage {
	return usage{
		known: u.known && before.known, partKnown: u.partKnown && before.partKnown,
		cpu: u.cpu - before.cpu, part: u.part - before.part,
	}
}

// resident returns how many bytes of memory the path's processes hold.
func (p *Path) resident() (bytes int64, ok bool) {
	if p.Processes == nil {
		return 0, false
	}
	return residentBytes(p.Processes())
}
