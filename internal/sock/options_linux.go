package sock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func setUserTimeout(fd uintptr, ms int) error {
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	return option("TCP_USER_TIMEOUT", err)
}

func setNotSentLowat(fd uintptr, bytes int) error {
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	return option("TCP_NOTSENT_LOWAT", err)
}

// sendQueue is SIOCOUTQ: bytes written and not yet acknowledged (tcp(7)).
func sendQueue(fd uintptr) (int, error) {
	return unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
}

func option(name string, err error) error {
	if err == nil || errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a socket, but not TCP
	}
	return fmt.Errorf("setting %s: %w", name, err)
}
