package sock

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// PeerOf returns who has connected to a unix socket, by the kernel's word
// (SO_PEERCRED, unix(7)): "unix:uid=1000,pid=4242", or "unix" where it does not say.
func PeerOf(c net.Conn) string {
	rc := rawConn(c)
	if rc == nil {
		return "unix"
	}
	var cred *unix.Ucred
	err := control(rc, func(fd uintptr) (err error) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return "unix"
	}
	return fmt.Sprintf("unix:uid=%d,pid=%d", cred.Uid, cred.Pid)
}
