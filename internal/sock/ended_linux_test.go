package sock

import (
	"io"
	"testing"
	"time"
)

// A peer that has sent its end and then resets the connection has sent all that it
// had to say, and whoever reads that late is not to take it for less.
func TestResetAfterTheEnd(t *testing.T) {
	c, s := pair(t)
	if _, err := s.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := ResetClose(s); err != nil {
		t.Fatal(err)
	}
	rc := rawConn(c)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		gone := false
		if err := rc.Control(func(fd uintptr) { gone = disconnected(fd) }); err != nil {
			t.Fatal(err)
		}
		if gone {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the reset does not come")
		}
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "all of it" {
		t.Fatalf("read %q, %v", b, err)
	}
	if err := EndOrReset(c); err != nil {
		t.Errorf("got %v, want the end that was sent", err)
	}
}
