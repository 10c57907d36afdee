package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of processor time in /proc/PID/stat: USER_HZ, which is
// 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime returns the processor time of processes and of their children that
// have been waited for.
func cpuTime(pids []int) (total time.Duration, ok bool) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, false
		}
		// The second field is a name in parentheses; the times are fields 14 to
		// 17 (proc_pid_stat(5)).
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 15 {
			return 0, false
		}
		for _, f := range fields[11:15] {
			ticks, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil {
				return 0, false
			}
			total += time.Duration(ticks) * clockTick
		}
	}
	return total, true
}

// residentBytes returns the resident memory of processes (Rss).
func residentBytes(pids []int) (total int64, ok bool) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, false
		}
		kib, ok := field(b, "VmRSS:")
		if !ok {
			return 0, false
		}
		total += kib << 10
	}
	return total, true
}

// field returns the number behind a name at the start of a line.
func field(b []byte, name string) (int64, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				n, err := strconv.ParseInt(string(f[0]), 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}
