package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// TestStreamsOutliveTheirPath carries streams over a channel whose path dies
// again and again: each ends cleanly with the bytes that were sent.
func TestStreamsOutliveTheirPath(t *testing.T) {
	a, b, cut := lastingPair(t)
	p := startPair(t, a, b, Config{}, Config{})
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	var deaths atomic.Int64
	cutting.Go(func() {
		for {
			// A slow machine is to come to a path: one that is cut each time before its
			// handshake is over would bring nothing.
			for up, changed := a.(*channel.Channel).Up(); !up; up, changed = a.(*channel.Channel).Up() {
				select {
				case <-stop:
					return
				case <-changed:
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(30+rand.IntN(70)) * time.Millisecond):
				cut()
				deaths.Add(1)
			}
		}
	})
	want := bytes.Repeat([]byte("culvert!"), 3<<17)
	for deaths.Load() < 3 {
		eightBothWays(t, p, want)
	}
	close(stop)
	cutting.Wait()
}

// eightBothWays carries want both ways in each of eight streams.
func eightBothWays(t *testing.T, p *pair, want []byte) {
	t.Helper()
	var streams sync.WaitGroup
	for range 8 {
		c, s := p.open(t)
		for _, way := range [][2]*Stream{{c, s}, {s, c}} {
			streams.Go(func() {
				if _, err := way[0].Write(want); err != nil {
					t.Errorf("Write: %v", err)
				}
				if err := way[0].CloseWrite(); err != nil {
					t.Errorf("CloseWrite: %v", err)
				}
			})
			streams.Go(func() {
				got, err := io.ReadAll(way[1])
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %d bytes, %v; want %d and a clean end", len(got), err, len(want))
				}
			})
		}
	}
	streams.Wait()
}

// TestMove: the acceptor's wish for another path reaches the opener.
func TestMove(t *testing.T) {
	p := newPair(t, Config{})
	for range 3 {
		p.server.Move("the relay drains")
		select {
		case <-p.client.Moving():
		case <-time.After(patience):
			t.Fatal("no MOVE came")
		}
	}
}

// TestCleanClose: the peer's clean close of the channel has an error of its
// own, and is no clean end of a stream.
func TestCleanClose(t *testing.T) {
	a, b := channelPair(t)
	p := startPair(t, a, b, Config{}, Config{})
	c, _ := p.open(t)
	p.server.Close(code.OK, "")
	_, err := c.Read(make([]byte, 1))
	wantLoss(t, err)
	await(t, p.client.Done(), "the client's end")
	if err := p.client.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("session ended with %v, want ErrClosed", err)
	}
	if _, err := p.client.Open(context.Background(), Open{Service: "s"}); err == nil {
		t.Error("a stream could be opened")
	}
}

// TestNumbersUsedUp: a session that lasts can run out of numbers for streams,
// and says so; what it has goes on.
func TestNumbersUsedUp(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	next := reflect.ValueOf(p.client.mux).Elem().FieldByName("nextStreamID")
	atomic.StoreUint32((*uint32)(next.Addr().UnsafePointer()), math.MaxUint32-2)
	last := p.request(t)
	if _, err := p.accept(t).Accept(); err != nil {
		t.Fatalf("Accept: %v", err)
	}
	if _, err := last.Write([]byte("x")); err != nil {
		t.Errorf("Write on the last stream: %v", err)
	}
	for range 2 {
		if _, err := p.client.Open(soon(t), Open{Service: "db"}); !errors.Is(err, ErrUsedUp) || CodeOf(err) != code.Limit {
			t.Errorf("Open: %v, want ErrUsedUp", err)
		}
	}
	if _, err := c.Write([]byte("y")); err != nil {
		t.Errorf("Write: %v", err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Errorf("Read: %v", err)
	}
}
