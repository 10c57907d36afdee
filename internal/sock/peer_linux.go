package sock

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// PeerOf returns who has connected to a unix socket, by the kernel's word
// (SO_PEERCRED, unix(7)): "unix:uid=1000,pid=4242". What the kernel cannot say in this
// process's namespaces is left out, and "unix" is all that there is where that is both.
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
	var uids string
	if cred.Uid == overflowUID {
		b, _ := os.ReadFile("/proc/self/uid_map") // "" if that cannot be read: then nobody knows
		uids = string(b)
	}
	return peerName(cred, uids)
}

// overflowUID is what the kernel says in the place of a user that this process's user
// namespace does not have (user_namespaces(7), "Unmapped user and group IDs").
const overflowUID = 65534

// peerName is PeerOf for a process with those users, as /proc/self/uid_map has them,
// which is looked at only for the overflow user.
func peerName(cred *unix.Ucred, uids string) string {
	var known []string
	if cred.Uid != overflowUID || hasUser(uids, overflowUID) {
		known = append(known, fmt.Sprintf("uid=%d", cred.Uid))
	}
	if cred.Pid != 0 { // of another PID namespace
		known = append(known, fmt.Sprintf("pid=%d", cred.Pid))
	}
	if len(known) == 0 {
		return "unix"
	}
	return "unix:" + strings.Join(known, ",")
}

// hasUser reports whether a user namespace has a user, by its uid_map: lines of the first
// one inside, the first one outside, and how many there are.
func hasUser(uids string, uid uint64) bool {
	for line := range strings.Lines(uids) {
		var inside, outside, count uint64
		if n, err := fmt.Sscan(line, &inside, &outside, &count); n == 3 && err == nil && uid >= inside && uid-inside < count {
			return true
		}
	}
	return false
}
