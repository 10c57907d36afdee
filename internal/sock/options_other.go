//go:build !linux && !darwin

package sock

func setUserTimeout(uintptr, int) error { return nil }

func setNotSentLowat(uintptr, int) error { return nil }

func sendQueue(uintptr) (int, error) { return 0, errUnsupported }
