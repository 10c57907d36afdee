package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// What is asked of Landlock is what can be done to files in its version 5. The
// network stays out: ports that settings name change while a process runs, and
// sockets of Multipath TCP, which package net listens with, are not covered. So do
// the scopes of version 6: before Linux 6.15 they keep a thread from signalling
// another one of its own process, which the Go runtime does.
var handled = landlock.V5.HandledAccessFS

const newest = 5

// accesses are the rights that a use is, to what is in a folder.
var accesses = map[use]landlock.AccessFSSet{
	useRead:    ll.AccessFSReadFile | ll.AccessFSReadDir,
	useAppend:  ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSMakeReg,
	useReplace: ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile,
	useSocket:  ll.AccessFSMakeSock | ll.AccessFSRemoveFile,
}

// ofFiles are the rights that there are to a file alone.
const ofFiles landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate

// Confine keeps this process, with all its threads, from opening anything but files
// from now on, for good. It may gain no privileges by starting programs afterwards
// (PR_SET_NO_NEW_PRIVS). Where there is no Landlock nothing has changed: the error is
// [ErrUnavailable], or another one that says why it could not be used.
func Confine(files Files) (*Report, error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return &Report{}, explain(err)
	}
	files.Read = append(files.Read, namedBy("SSL_CERT_FILE")...)
	files.Read = append(files.Read, namedBy("SSL_CERT_DIR")...)
	_, _ = time.Now().Zone() // read here: what package time has of this place, once and for all
	if err := pin("/proc/self", "/proc/stat"); err != nil {
		return &Report{}, err
	}
	report := &Report{ABI: min(abi, newest), Resolves: files.resolves(systemDisk())}
	var rules []landlock.Rule
	for _, g := range files.grants(systemDisk()) {
		info, err := os.Stat(g.path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // it cannot be opened either way
		}
		if err != nil {
			return &Report{}, fmt.Errorf("confining this process: %w", err)
		}
		access := accesses[g.use]
		if !info.IsDir() {
			access &= ofFiles
		}
		rules = append(rules, landlock.PathAccess(access, g.path).IgnoreIfMissing())
		if g.use == useRead {
			report.Read = append(report.Read, g.path)
		} else {
			report.Written = append(report.Written, g.path)
		}
	}
	if err := (landlock.Config{HandledAccessFS: handled}).BestEffort().RestrictPaths(rules...); err != nil {
		return &Report{}, fmt.Errorf("confining this process: %w", err)
	}
	report.Written = slices.Compact(report.Written) // they are sorted
	return report, nil
}

// namedBy returns the paths that a variable of the environment names, by which package
// crypto/x509 finds certificates.
func namedBy(variable string) (paths []string) {
	for _, path := range filepath.SplitList(os.Getenv(variable)) {
		if info, err := os.Stat(path); err == nil && info.IsDir() { //nolint:gosec // whoever sets the environment has the say
			path = filepath.Join(path, "*") // something in it
		}
		paths = append(paths, path)
	}
	return paths
}

// explain says why there is no Landlock.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: its kernel is older than Linux 5.13, or built without it", ErrUnavailable)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: it is not among the security modules that its kernel was booted with (lsm=)", ErrUnavailable)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w that this process may use: a filter of system calls forbids it", ErrUnavailable)
	}
	return errors.Join(ErrUnavailable, err)
}

// pin holds files of /proc open for as long as this process lives: what is allowed of
// a file is allowed of its inode, and those of /proc are made anew when nobody has
// them.
func pin(paths ...string) error {
	for _, path := range paths {
		switch _, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.EACCES):
		default:
			return fmt.Errorf("confining this process: holding %s: %w", path, err)
		}
	}
	return nil
}

// isMountPoint reports whether something is mounted at path.
func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
