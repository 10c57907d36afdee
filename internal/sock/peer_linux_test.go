package sock

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel does not know in this process's namespaces is not taken for the user
// nobody, or for a process.
func TestPeerName(t *testing.T) {
	const all, private = "         0          0 4294967295\n", "         0          0          1\n     61184      61184          1\n"
	for _, tt := range []struct {
		cred unix.Ucred
		uids string
		want string
	}{
		{unix.Ucred{Uid: 1000, Pid: 4242}, "", "unix:uid=1000,pid=4242"},
		{unix.Ucred{Uid: 0, Pid: 1}, private, "unix:uid=0,pid=1"},
		{unix.Ucred{Uid: overflowUID, Pid: 4242}, private, "unix:pid=4242"},
		{unix.Ucred{Uid: overflowUID, Pid: 4242}, "", "unix:pid=4242"},
		{unix.Ucred{Uid: overflowUID, Pid: 4242}, "junk\n1 2\n", "unix:pid=4242"},
		{unix.Ucred{Uid: overflowUID, Pid: 4242}, all, "unix:uid=65534,pid=4242"},
		{unix.Ucred{Uid: overflowUID, Pid: 4242}, "0 100000 65536\n", "unix:uid=65534,pid=4242"},
		{unix.Ucred{Uid: 1000}, all, "unix:uid=1000"},
		{unix.Ucred{Uid: overflowUID}, private, "unix"},
	} {
		if got := peerName(&tt.cred, tt.uids); got != tt.want {
			t.Errorf("%+v among %q is called %q, want %q", tt.cred, tt.uids, got, tt.want)
		}
	}
}
