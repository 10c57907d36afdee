//go:build !linux && !darwin

package sock

import "errors"

func setUserTimeout(uintptr, int) error { return nil }

func setNotSentLowat(uintptr, int) error { return nil }

func sendQueue(uintptr) (int, error) { return 0, errors.ErrUnsupported }
