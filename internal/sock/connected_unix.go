//go:build unix

package sock

import "golang.org/x/sys/unix"

// disconnected reports whether a TCP socket that has been connected is so no more:
// then it has no peer to name (getpeername(2), ENOTCONN; EINVAL on macOS).
func disconnected(fd uintptr) bool {
	_, err := unix.Getpeername(int(fd))
	return err != nil
}
