package identity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// family returns the histories of one identity that grow like a tree: each
// continues one of those before it.
func family(t testing.TB, first byte, parents []int) []*Identity {
	t.Helper()
	id, err := newWith(testKey(first), epoch, Validity)
	if err != nil {
		t.Fatal(err)
	}
	all := []*Identity{id}
	for i, parent := range parents {
		next, err := all[parent].rotateTo(testKey(first+byte(i)+1), epoch.Add(time.Hour), Validity)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, next)
	}
	return all
}

// drawFamily draws a tree of a few histories.
func drawFamily(t testing.TB, r *rapid.T, first byte) []*Identity {
	n := rapid.IntRange(0, 6).Draw(r, "rotations")
	parents := make([]int, n)
	for i := range parents {
		parents[i] = rapid.IntRange(0, i).Draw(r, "parent")
	}
	return family(t, first, parents)
}

// A naive memory keeps all that it was shown and compares change by change.
type naive struct {
	newest   []signedChange
	diverged bool
}

func (n *naive) accept(list []signedChange) error {
	same := func(a, b signedChange) bool {
		return bytes.Equal(a.Change, b.Change) && bytes.Equal(a.Own, b.Own) && bytes.Equal(a.Previous, b.Previous)
	}
	for i := range min(len(list), len(n.newest)) {
		if !same(list[i], n.newest[i]) {
			n.diverged = true
		}
	}
	switch {
	case n.diverged:
		return ErrDiverged
	case len(list) < len(n.newest):
		return ErrRolledBack
	}
	n.newest = list
	return nil
}

// Whatever histories of two identities arrive in whatever order, a Memory says
// what one says that keeps everything; before and after it was kept in a file.
func TestMemoryAgainstModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		m, models := NewMemory(0), [2]*naive{{}, {}}
		families := [2][]*Identity{drawFamily(t, r, 1), drawFamily(t, r, 100)}
		path := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
		for range rapid.IntRange(1, 20).Draw(r, "arrivals") {
			who := rapid.IntRange(0, 1).Draw(r, "who")
			h := rapid.SampledFrom(families[who]).Draw(r, "which").History()
			switch rapid.IntRange(0, 4).Draw(r, "what") {
			case 0:
				before := *models[who]
				got, want := m.Check(h), models[who].accept(decode(t, h))
				if !errors.Is(got, want) {
					r.Fatalf("Check of %d changes = %v, want %v", h.Len(), got, want)
				}
				models[who].newest = before.newest
			case 1:
				restarted := NewMemory(0)
				if err := errors.Join(m.Sync(path), restarted.Sync(path)); err != nil {
					r.Fatal(err)
				}
				if !bytes.Equal(restarted.contentLocked(), m.contentLocked()) {
					r.Fatal("the file lost something")
				}
				m = restarted
			default:
				if got, want := m.Accept(h), models[who].accept(decode(t, h)); !errors.Is(got, want) {
					r.Fatalf("Accept of %d changes = %v, want %v", h.Len(), got, want)
				}
			}
		}
	})
}

// In every order of arrival of an identity's histories: what is older than one
// seen is refused as such, and once two have come of which neither continues the
// other, all are.
func TestMemoryInEveryOrder(t *testing.T) {
	// 0 - 1 - 3
	//       \ 2 - 4
	all := family(t, 1, []int{0, 1, 1, 2})
	all[2], all[3] = all[3], all[2]
	for order := range permutations(len(all)) {
		m, newest, forked := NewMemory(0), all[0].History(), false
		for n, i := range order {
			h := all[i].History()
			forked = forked || n > 0 && !h.Extends(newest) && !newest.Extends(h)
			want := error(nil)
			switch {
			case forked:
				want = ErrDiverged
			case n > 0 && !h.Extends(newest):
				want = ErrRolledBack
			default:
				newest = h
			}
			err := m.Accept(h)
			if !errors.Is(err, want) {
				t.Fatalf("order %v, history %d: %v, want %v", order, i, err, want)
			}
			if want != nil {
				wantError(t, err, h.Identifier().String(), "make a new identity")
			}
		}
		for _, id := range all {
			if err := m.Accept(id.History()); !errors.Is(err, ErrDiverged) {
				t.Fatalf("order %v: %d changes are accepted after all: %v", order, id.History().Len(), err)
			}
		}
	}
}

// permutations yields all orders of 0 to n-1.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		var extend func(p []int) bool
		extend = func(p []int) bool {
			if len(p) == n {
				return yield(slices.Clone(p))
			}
			for i := range n {
				if !slices.Contains(p, i) && !extend(append(p, i)) {
					return false
				}
			}
			return true
		}
		extend(nil)
	}
}

// No bit of a history can be changed, none be added or left out.
func TestHistoryRefusesEveryFlippedBit(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := testIdentity(t, rapid.IntRange(1, 6).Draw(r, "changes")).History()
		raw := h.Bytes()
		bit := rapid.IntRange(0, 8*len(raw)-1).Draw(r, "bit")
		raw[bit/8] ^= 1 << (bit % 8)
		if _, err := ParseHistory(raw); err == nil {
			r.Fatalf("bit %d flipped: accepted", bit)
		}
	})
}

// Of all that can be made of a history's changes, only what it has been verifies.
func TestHistoryRefusesEveryOtherOrder(t *testing.T) {
	id := testIdentity(t, 5)
	all := decode(t, id.History())
	rapid.Check(t, func(r *rapid.T) {
		order := rapid.SliceOfN(rapid.IntRange(0, len(all)-1), 1, 7).Draw(r, "order")
		list, right := make([]signedChange, len(order)), true
		for i, at := range order {
			list[i] = all[at]
			right = right && at == i
		}
		h, err := ParseHistory(encode(t, list))
		if (err == nil) != right {
			r.Fatalf("order %v: %v", order, err)
		}
		if err == nil && !id.History().Extends(h) {
			r.Fatalf("order %v verifies as something else", order)
		}
	})
}

// A full Memory gives up what was accepted longest ago, and what has diverged
// last.
func TestMemoryIsBounded(t *testing.T) {
	m := NewMemory(3)
	id := func(n byte) *History { return family(t, 10*n, []int{0})[1].History() }
	accept := func(n byte) {
		t.Helper()
		if err := m.Accept(id(n)); err != nil {
			t.Fatal(err)
		}
	}
	held := func() (list []byte) {
		for n := byte(1); n < 10; n++ {
			if m.byID[id(n).Identifier()] != nil {
				list = append(list, n)
			}
		}
		return list
	}
	for _, h := range []*History{testIdentityFrom(t, 90, 1), testIdentityFrom(t, 91, 1)} {
		if err := m.Accept(h); err != nil || m.Len() != 0 {
			t.Errorf("a history of one change: %v, and takes room: %d", err, m.Len())
		}
	}
	accept(1)
	accept(2)
	accept(3)
	accept(1)
	accept(4)
	if got := held(); string(got) != "\x01\x03\x04" {
		t.Errorf("held: %v, want 2 to have gone", got)
	}
	fork, err := family(t, 30, nil)[0].rotateTo(testKey(39), epoch.Add(time.Hour), Validity)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(fork.History()); !errors.Is(err, ErrDiverged) {
		t.Errorf("Check = %v, want %v", err, ErrDiverged)
	}
	for n := byte(5); n < 8; n++ {
		accept(n)
	}
	if got := held(); string(got) != "\x03\x06\x07" {
		t.Errorf("held: %v, want 3, which has diverged, and the last two", got)
	}
	small := NewMemory(1)
	small.byID, small.order = m.byID, m.order
	if err := small.Accept(id(8)); err != nil || small.Len() != 1 {
		t.Errorf("Accept = %v, %d held, want 1", err, small.Len())
	}
}

// Changed says when there is something to keep, and Sync keeps it.
func TestMemoryChanged(t *testing.T) {
	all := family(t, 1, []int{0, 1, 0})
	m, path := NewMemory(0), filepath.Join(t.TempDir(), "histories")
	changed := func() bool {
		select {
		case <-m.Changed():
			return true
		default:
			return false
		}
	}
	for _, tt := range []struct {
		what string
		do   func() error
		want bool
	}{
		{"nothing", func() error { return nil }, false},
		{"one change", func() error { return m.Accept(all[0].History()) }, false},
		{"a second", func() error { return m.Accept(all[1].History()) }, true},
		{"the same", func() error { return m.Accept(all[1].History()) }, false},
		{"an older one", func() error { _ = m.Accept(all[0].History()); return nil }, false},
		{"a third that is only checked", func() error { return m.Check(all[2].History()) }, false},
		{"a third", func() error { return m.Accept(all[2].History()) }, true},
		{"a fork", func() error { _ = m.Check(all[3].History()); return nil }, true},
		{"the fork again", func() error { _ = m.Accept(all[3].History()); return nil }, false},
		{"after Sync", func() error { m.signal(); return m.Sync(path) }, false},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		if got := changed(); got != tt.want {
			t.Errorf("%s: changed %v, want %v", tt.what, got, tt.want)
		}
	}
}

// Processes that share a file lose nothing of what any of them has seen.
func TestMemoryFileIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "histories")
	var sharing sync.WaitGroup
	const processes, each = 4, 8
	for p := range processes {
		sharing.Go(func() {
			m := NewMemory(0)
			for i := range each {
				h := family(t, byte(p*each+i+1)*3, []int{0})[1].History()
				if err := errors.Join(m.Accept(h), m.Sync(path)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sharing.Wait()
	m := NewMemory(0)
	if err := m.Sync(path); err != nil || m.Len() != processes*each {
		t.Errorf("Sync: %v, %d identities, want %d", err, m.Len(), processes*each)
	}
	// A newer one here, another newer one there, and a fork of a third.
	all := family(t, 1, []int{0, 1, 0})
	a, b := NewMemory(0), NewMemory(0)
	err := errors.Join(a.Accept(all[2].History()), b.Accept(all[1].History()), a.Sync(path), b.Sync(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Check(all[1].History()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("what another process has seen is not known: %v", err)
	}
	c := NewMemory(0)
	if err := errors.Join(c.Accept(all[3].History()), c.Sync(path), a.Sync(path)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Memory{a, c} {
		if err := m.Check(all[2].History()); !errors.Is(err, ErrDiverged) {
			t.Errorf("what two processes have seen together is not known: %v", err)
		}
	}
}

// Load learns what Sync has written, and leaves nothing behind: no file, no lock, not
// what this Memory knows.
func TestMemoryLoads(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "histories")
	all := family(t, 1, []int{0, 1})
	m := NewMemory(0)
	if err := errors.Join(m.Load(path), m.Accept(all[1].History()), m.Load(path)); err != nil {
		t.Fatalf("Load of no file: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("Load has made %v, %v", list, err)
	}
	other := NewMemory(0)
	if err := errors.Join(other.Accept(all[2].History()), other.Sync(path)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o400), m.Load(path)); err != nil {
		t.Fatalf("Load: %v", err)
	}
	if err := m.Check(all[1].History()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("what the file knows is not known: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file is %q, %v; want it as it was", after, err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, before[:len(before)-2], 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(path); err == nil || !strings.Contains(err.Error(), "restore it, or remove it") {
		t.Errorf("Load of a damaged file: %v", err)
	}
}

// A file that cannot be what Sync has written is refused and stays as it is.
func TestMemoryFileRefuses(t *testing.T) {
	m := NewMemory(0)
	for _, h := range []*History{testIdentityFrom(t, 1, 3), testIdentityFrom(t, 50, 2)} {
		if err := m.Accept(h); err != nil {
			t.Fatal(err)
		}
	}
	good := string(m.contentLocked())
	lines := strings.SplitAfter(good, "\n")
	for _, tt := range []struct{ name, content, want string }{
		{"cut off", good[:len(good)-1], "cut off"},
		{"without its end", good[:len(good)-4], "cut off"},
		{"no head", strings.Join(lines[1:], ""), "line 1: want"},
		{"another version", strings.Replace(good, "histories 1", "histories 2", 1), "line 1: want"},
		{"more behind", good + "x\n", "line 5: something stands behind the end"},
		{"twice", lines[0] + lines[1] + lines[1] + lines[3], "line 3: " + testIdentityFrom(t, 1, 3).Identifier().String() + " comes a second time"},
		{"no identifier", lines[0] + "bob ok\n" + lines[3], "line 2: identifier has 3"},
		{"a state", strings.Replace(good, " ok ", " fine ", 1), "line 2: state \"fine\""},
		{"a hash", strings.Replace(good, " ok ", " ok 00 ", 1), "a hash is not"},
		{"upper case", strings.ToUpper(good), "line 1"},
		{"nothing to say", lines[0] + testIdentityFrom(t, 9, 1).Identifier().String() + " ok\n" + lines[3], "says nothing"},
		{"CR", strings.ReplaceAll(good, "\n", "\r\n"), "line 1"},
		{"a long line", lines[0] + strings.Repeat("a", maxMemoryLine) + "\n" + lines[3], "line 2: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "histories")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			wantError(t, NewMemory(0).Sync(path), path, tt.want, "remove it")
			if got, err := os.ReadFile(path); err != nil || string(got) != tt.content {
				t.Errorf("the file was changed: %q, %v", got, err)
			}
		})
	}
	err := m.Sync(filepath.Join(t.TempDir(), "no", "histories"))
	wantError(t, err, "histories", "make its folder")
	err = m.Sync(t.TempDir())
	wantError(t, err, "not a regular file")
}

func FuzzParseMemory(f *testing.F) {
	m := NewMemory(0)
	for i := range byte(3) {
		if err := m.Accept(testIdentityFrom(f, 10*(i+1), 2+int(i))); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(m.contentLocked())
	f.Add(NewMemory(0).contentLocked())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseMemory(b)
		if err != nil || len(b) == 0 {
			return
		}
		m := NewMemory(0)
		if got := m.merge(list); !bytes.Equal(got, b) {
			t.Errorf("accepted %q but prints %q", b, got)
		}
	})
}
