package sock

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func getInt(t *testing.T, c *net.TCPConn, opt int) int {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if err := control(rc, func(fd uintptr) (err error) {
		v, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSetUserTimeout(t *testing.T) {
	c, _ := pair(t)
	for _, tc := range []struct {
		d    time.Duration
		want int // milliseconds
	}{
		{10 * time.Second, 10_000},
		{1500 * time.Microsecond, 2},
		{time.Nanosecond, 1}, // 0 would mean the default, which is far longer
		{0, 0},
		{-time.Second, 0},
	} {
		if err := SetUserTimeout(c, tc.d); err != nil {
			t.Fatalf("SetUserTimeout(%v): %v", tc.d, err)
		}
		if got := getInt(t, c, unix.TCP_USER_TIMEOUT); got != tc.want {
			t.Errorf("SetUserTimeout(%v): the socket says %d ms, want %d", tc.d, got, tc.want)
		}
	}
	if err := SetUserTimeout(&wrapped{Conn: c}, 7*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := getInt(t, c, unix.TCP_USER_TIMEOUT); got != 7000 {
		t.Errorf("through a wrapper: the socket says %d ms, want 7000", got)
	}
}

func TestSetNotSentLowat(t *testing.T) {
	c, _ := pair(t)
	if err := SetNotSentLowat(c, 128<<10); err != nil {
		t.Fatal(err)
	}
	if got := getInt(t, c, unix.TCP_NOTSENT_LOWAT); got != 128<<10 {
		t.Errorf("the socket says %d, want %d", got, 128<<10)
	}
}

// A Unix socket knows none of TCP's options, which is no error.
func TestOptionsOfUnixSocket(t *testing.T) {
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := SetUserTimeout(c, time.Second); err != nil {
		t.Errorf("SetUserTimeout: %v", err)
	}
	if err := SetNotSentLowat(c, 1); err != nil {
		t.Errorf("SetNotSentLowat: %v", err)
	}
}

func TestWaitSent(t *testing.T) {
	c, s := pair(t)
	_ = s.SetReadBuffer(4 << 10)
	if _, err := c.Write([]byte("a few bytes")); err != nil {
		t.Fatal(err)
	}
	if !WaitSent(c, 10*time.Second) {
		t.Error("a few bytes to a peer with room: not sent")
	}
	// Fill both kernels' buffers: the rest cannot be sent. A time may be over before the
	// first byte was offered.
	b := make([]byte, 16<<20)
	for idle := 0; idle < 2; {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Write(b)
		if err == nil {
			t.Fatal("16 MiB went to a peer that does not read")
		}
		if idle++; n > 0 {
			idle = 0
		}
	}
	start := time.Now()
	if WaitSent(c, 20*time.Millisecond) {
		t.Error("more than the peer has room for: sent")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("WaitSent took %v, was to take 20 ms", took)
	}
}
