package turns

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// hold takes a place for a handshake that never ends by itself, and returns what ends
// when it has given way and given its place back.
func hold(t *testing.T, turns *Turns, places chan struct{}) <-chan error {
	t.Helper()
	if !turns.Take(t.Context(), places) {
		t.Fatal("no place")
	}
	ctx, done := turns.Begin(t.Context())
	over := make(chan error, 1)
	go func() {
		<-ctx.Done()
		done()
		<-places
		over <- context.Cause(ctx)
	}()
	return over
}

// The oldest gives way, after its time and not before, and only while others wait.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		turns, places := &Turns{}, make(chan struct{}, 2)
		first := hold(t, turns, places)
		time.Sleep(time.Second)
		second := hold(t, turns, places)
		time.Sleep(time.Minute)
		if len(first)+len(second) > 0 {
			t.Fatal("one gave way to nobody")
		}
		began := time.Now()
		third := hold(t, turns, places)
		if err := <-first; !errors.Is(err, ErrGaveWay) || time.Since(began) > settle {
			t.Errorf("the oldest ended with %v after %v", err, time.Since(began))
		}
		hold(t, turns, places)
		if err := <-second; !errors.Is(err, ErrGaveWay) {
			t.Errorf("the next ended with %v", err)
		}
		began = time.Now()
		hold(t, turns, places) // both are young
		if err := <-third; !errors.Is(err, ErrGaveWay) || time.Since(began) < Patience-time.Minute/1000 {
			t.Errorf("a young one ended with %v after %v, want %v", err, time.Since(began), Patience)
		}
		time.Sleep(Patience) // the one before the last is old by now
		hold(t, turns, places)
		time.Sleep(Patience / 4)
		hold(t, turns, places) // and the last, too
		short, stop := context.WithTimeout(ctx, Patience/2)
		defer stop()
		if turns.Take(short, places) {
			t.Error("there is a place while all are young")
		}
	})
}

// One that is over is not asked to give way, and its place is had at once.
func TestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, places := &Turns{}, make(chan struct{}, 1)
		if !turns.Take(t.Context(), places) {
			t.Fatal("no place")
		}
		ctx, done := turns.Begin(t.Context())
		go func() {
			time.Sleep(time.Second)
			done()
			<-places
		}()
		began := time.Now()
		if !turns.Take(t.Context(), places) || time.Since(began) != time.Second {
			t.Errorf("a place after %v, want a second", time.Since(began))
		}
		if errors.Is(context.Cause(ctx), ErrGaveWay) {
			t.Error("what was over has given way")
		}
		if turns.under.Len() != 0 {
			t.Errorf("%d are under way", turns.under.Len())
		}
	})
}

// Without turns a place is waited for, and nobody gives way.
func TestNobodyGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns *Turns
		places := make(chan struct{}, 1)
		over := hold(t, turns, places)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if turns.Take(ctx, places) || len(over) > 0 {
			t.Error("somebody gave way")
		}
	})
}
