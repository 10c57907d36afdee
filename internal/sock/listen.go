package sock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
)

// ListenUnix listens at the path of a unix stream socket, which it makes with the
// permissions of mode: who may write it may connect. It takes the place of a socket
// that a dead process left behind, and of nothing else. Close removes what was made,
// unless something else stands there meanwhile.
func ListenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if err := clearStale(ctx, path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setMode(c, mode.Perm()) }}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	ul := &unixListener{UnixListener: ln.(*net.UnixListener), path: path}
	ul.SetUnlinkOnClose(false)
	// The mode that the file was made with is less the umask; and where setMode can
	// do nothing, the socket has been open, by the umask's leave, for a moment.
	err = os.Chmod(path, mode.Perm())
	if err == nil {
		ul.made, err = os.Lstat(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keeping others from the socket: %w", err), ul.Close())
	}
	return ul, nil
}

// clearStale removes a socket at which nobody listens, and refuses everything else
// that is in the way.
func clearStale(ctx context.Context, path string) error {
	for {
		before, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("listen unix: %w", err)
		case before.Mode().Type() != fs.ModeSocket:
			return fmt.Errorf("listen unix %s: %w: there is something that is no socket, which is left alone", path, syscall.EADDRINUSE)
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			_ = c.Close() // only to see whether somebody answers
			return fmt.Errorf("listen unix %s: %w: another process listens there", path, syscall.EADDRINUSE)
		case ctx.Err() != nil:
			return err
		case !refused(err):
			return fmt.Errorf("listen unix %s: cannot tell whether another process listens there: %w", path, err)
		}
		// Another process that starts now may have taken the place meanwhile.
		if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a socket that a dead process left: %w", err)
		}
		return nil
	}
}

// A unixListener removes its socket, and no other, when it is closed.
type unixListener struct {
	*net.UnixListener
	path string
	made fs.FileInfo // nil: nothing is to be removed
	once sync.Once
}

// SetMode gives the socket of a listener that [ListenUnix] has made the permissions of
// mode, from the next connection on. What stands in the socket's place meanwhile is left
// as it is, and an error.
func SetMode(ln net.Listener, mode fs.FileMode) error {
	l, ok := ln.(*unixListener)
	if !ok {
		return fmt.Errorf("%s is no unix socket that was made here", ln.Addr())
	}
	now, err := os.Lstat(l.path)
	if err != nil {
		return fmt.Errorf("changing who may connect: %w", err)
	}
	if !os.SameFile(l.made, now) {
		return fmt.Errorf("changing who may connect: %s is not the socket any more that this process has made there", l.path)
	}
	if err := os.Chmod(l.path, mode.Perm()); err != nil {
		return fmt.Errorf("changing who may connect: %w", err)
	}
	return nil
}

// Close stops listening. Before that nobody finds the socket any more.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && l.made != nil && os.SameFile(l.made, now) {
			_ = os.Remove(l.path) // a socket that stays is taken for a dead process's
		}
	})
	return l.UnixListener.Close()
}
