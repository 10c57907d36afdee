//go:build !linux

package sock

func endedFirst(uintptr) bool { return false }
