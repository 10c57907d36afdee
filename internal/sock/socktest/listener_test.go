package socktest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A conn is there once it is accepted, and until then for as long as its caller waits.
func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if nc, err := l.Dial(ctx); nc != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("nobody accepts, and Dial = %v, %v", nc, err)
		}
		accepted := make(chan net.Conn, 1)
		began := time.Now()
		time.AfterFunc(time.Hour, func() {
			nc, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- nc
		})
		near := l.Call(t)
		if took := time.Since(began); took != time.Hour {
			t.Errorf("dialled after %v, accepted after an hour", took)
		}
		far := <-accepted
		go func() {
			_, _ = far.Write([]byte("hello"))
			_ = far.Close()
		}()
		if got, err := io.ReadAll(near); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		for range 2 {
			_ = l.Close()
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accepting at a closed listener: %v, want %v", err, net.ErrClosed)
			}
			if _, err := l.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("dialling a closed listener: %v, want %v", err, net.ErrClosed)
			}
		}
	})
}
