package obs

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

func states(r *Ready) string {
	ok, list := r.Check()
	return fmt.Sprint(ok, list)
}

func TestReady(t *testing.T) {
	var r Ready
	why := errors.New("why")
	step := func(want string) {
		t.Helper()
		if got := states(&r); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	step("false [{process starting}]")
	r.Set("b", nil)
	step("true [{b <nil>}]")
	r.Set("a", why)
	step("false [{a why} {b <nil>}]")
	r.SetFunc("a", func() error { _, _ = r.CheckOne("b"); return nil }) // may use r
	step("true [{a <nil>} {b <nil>}]")
	r.Delete("a")
	r.Delete("never there")
	step("true [{b <nil>}]")
	if s, found := r.CheckOne("a"); found || s.Err != nil {
		t.Errorf("CheckOne of a deleted check: %v, %v", s, found)
	}
	r.Set("b", why)
	if s, found := r.CheckOne("b"); !found || s.Err != why {
		t.Errorf("CheckOne: %v, %v, want %v", s, found, why)
	}
	r.Delete("b")
	step("false [{process starting}]")
}

// All methods may be called at any time: the race detector watches.
func TestReadyIsSafe(t *testing.T) {
	var r Ready
	var wg sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprint(i % 3)
		wg.Go(func() {
			for range 200 {
				r.Set(name, nil)
				if ok, list := r.Check(); ok && slices.ContainsFunc(list, func(s State) bool { return s.Err != nil }) {
					t.Error("ready with a check that is not")
				}
				r.SetFunc(name, func() error { return errors.New("no") })
				r.CheckOne(name)
				r.Delete(name)
			}
		})
	}
	wg.Wait()
}
