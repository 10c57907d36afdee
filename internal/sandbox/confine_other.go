//go:build !linux

package sandbox

// Confine changes nothing: there is no Landlock here.
func Confine(Files) (*Report, error) { return &Report{}, ErrUnavailable }

// isMountPoint is not known here.
func isMountPoint(string) bool { return false }
