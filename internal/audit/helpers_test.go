package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is to happen.
const patience = time.Minute

// A running is a Log that runs, and what it has told.
type running struct {
	*Log
	failed    chan error  // capacity 100
	recovered chan uint64 // capacity 100
	stop      func()      // ends Run and waits for it
}

// start runs a log until the test's end.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{failed: make(chan error, 100), recovered: make(chan uint64, 100)}
	cfg.Process = testProcess()
	cfg.Failed = func(err error) { r.failed <- err }
	cfg.Recovered = func(n uint64) { r.recovered <- n }
	var err error
	if r.Log, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// record records n decisions.
func (r *running) record(n int) {
	for i := range n {
		r.Record(&Event{Kind: Decision, Action: Open, Service: "s", Code: "ok", Allowed: true, Reason: fmt.Sprint(i)})
	}
}

func receive[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
	}
	return v
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// seqs returns the sequence numbers of the lines in files, each of which must be
// whole.
func seqs(t *testing.T, files ...string) (list []uint64) {
	t.Helper()
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, seqsOf(t, b)...)
	}
	return list
}

func seqsOf(t *testing.T, b []byte) (list []uint64) {
	t.Helper()
	for text := range bytes.Lines(b) {
		var entry struct{ Seq uint64 }
		if err := json.Unmarshal(text, &entry); err != nil || text[len(text)-1] != '\n' {
			t.Fatalf("%q is no line: %v", text, err)
		}
		list = append(list, entry.Seq)
	}
	return list
}

// wantSeqs wants each number from 1 to n once, in order.
func wantSeqs(t *testing.T, got []uint64, n int) {
	t.Helper()
	for i, seq := range got {
		if seq != uint64(i)+1 {
			t.Fatalf("line %d has the number %d: something is lost, doubled or out of order", i+1, seq)
		}
	}
	if len(got) != n {
		t.Fatalf("%d lines, want %d", len(got), n)
	}
}

func auditFile(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "audit.log")
}
