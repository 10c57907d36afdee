package obs

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// However many ask what a process does, few are answered at a time: others wait for
// their turn, and are told when that takes long.
func TestFewAnswersAtATime(t *testing.T) {
	o := newTestObs(t)
	var now, most atomic.Int64
	hold := make(chan struct{})
	answering := make(chan struct{}, 100)
	s, _ := serve(t, o, Endpoints{Admin: "127.0.0.1:0", Status: func(url.Values) (any, error) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer now.Add(-1)
		answering <- struct{}{}
		<-hold
		return "status", nil
	}, History: func() any { return "history" }})
	release := sync.OnceFunc(func() { close(hold) })
	var asking sync.WaitGroup
	t.Cleanup(func() { release(); asking.Wait() })
	got := make(chan answer, 2*maxAnswers)
	ask := func() { got <- get(t, s.AdminAddr(), "/status") }
	for range maxAnswers {
		asking.Go(ask)
	}
	for range maxAnswers {
		<-answering
	}
	for _, path := range []string{"/status", "/status/history"} {
		a := get(t, s.AdminAddr(), path)
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "ask again") {
			t.Errorf("%s, while all places are taken: %d %q", path, a.status, a.body)
		}
	}
	if a := get(t, s.AdminAddr(), "/healthz"); a.status != http.StatusOK {
		t.Errorf("/healthz beside them: %d", a.status)
	}
	release()
	asking.Wait()
	for range maxAnswers {
		if a := <-got; a.status != http.StatusOK {
			t.Errorf("who had a place: %d %q", a.status, a.body)
		}
	}
	if a := get(t, s.AdminAddr(), "/status"); a.status != http.StatusOK || most.Load() > maxAnswers {
		t.Errorf("afterwards: %d %q, and %d at a time", a.status, a.body, most.Load())
	}
}
