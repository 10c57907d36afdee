//go:build !unix

package sock

func disconnected(uintptr) bool { return false }
