package identity

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/secretfile"
)

// The file that a [Memory] is kept in. It is text, for an operator to look at,
// and has one form for what it says:
//
//	culvert histories 1
//	IDENTIFIER ok|diverged [HASH...]
//	end
//
// A line has the hashes, in hexadecimal, of an identity's changes behind the
// first, which the identifier is; the identity accepted longest ago comes first.
const (
	memoryHead = "culvert histories 1"
	memoryEnd  = "end"

	stateOK       = "ok"
	stateDiverged = "diverged"

	// maxMemoryLine is more than an identity with MaxChanges takes, in bytes.
	maxMemoryLine = 4 << 10
	// maxMemoryLines bounds what is read, whatever the Memory holds.
	maxMemoryLines = 1 << 20

	// syncWait bounds how long Sync waits for others that do the same, in steps
	// of syncStep.
	syncWait = 5 * time.Second
	syncStep = 20 * time.Millisecond
)

// Sync brings m and the file at path together: m accepts what stands there, and
// the file, if it says something else then, is replaced, whole or not at all. It
// is made if it is not there; its folder must be. Several processes may share
// one file: each learns what the others have seen. A file that is damaged is an
// error, and left as it is.
//
// The file is not secret, but trusted: whoever can write it can make m forget,
// or refuse, any identity.
func (m *Memory) Sync(path string) error {
	unlock, err := lockBeside(path)
	if err != nil {
		return fmt.Errorf("histories file %s: %w", path, err)
	}
	defer unlock()
	before, err := readMemory(path)
	if err != nil {
		return fmt.Errorf("histories file %s: %w", path, err)
	}
	list, err := parseMemory(before)
	if err != nil {
		return fmt.Errorf("histories file %s: %w: restore it, or remove it, and what it knew is forgotten", path, err)
	}
	after := m.merge(list)
	if bytes.Equal(before, after) {
		return nil
	}
	if err := replaceFile(path, after, 0o600, nil); err != nil {
		return fmt.Errorf("histories file %s: %w", path, err)
	}
	return nil
}

// Load makes m know what the file at path says, and leaves the file as it is: for a
// process that looks at what another one has seen. A file that is not there says
// nothing; one that is damaged is an error.
func (m *Memory) Load(path string) error {
	b, err := readMemory(path) // without the lock: a file is replaced as a whole
	if err != nil {
		return fmt.Errorf("histories file %s: %w", path, err)
	}
	list, err := parseMemory(b)
	if err != nil {
		return fmt.Errorf("histories file %s: %w: restore it, or remove it, and what it knew is forgotten", path, err)
	}
	m.merge(list)
	return nil
}

// merge makes m know what list says, and returns the file's content.
func (m *Memory) merge(list []*seen) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := make([]*seen, 0, len(m.byID))
	for e := m.order.Front(); e != nil; e = e.Next() {
		own = append(own, e.Value.(*seen))
	}
	for _, s := range list {
		_ = m.lookLocked(s, true) // what is known here may be newer
	}
	for _, s := range own { // the file's were accepted before
		if e := m.byID[s.identifier()]; e != nil {
			m.order.MoveToBack(e)
		}
	}
	select {
	case <-m.changed: // about to be kept
	default:
	}
	return m.contentLocked()
}

// contentLocked returns the file's content.
func (m *Memory) contentLocked() []byte {
	b := []byte(memoryHead + "\n")
	for e := m.order.Front(); e != nil; e = e.Next() {
		b = append(e.Value.(*seen).append(b), '\n')
	}
	return append(b, memoryEnd+"\n"...)
}

// append appends s's line, without its end.
func (s *seen) append(b []byte) []byte {
	state := stateOK
	if s.diverged {
		state = stateDiverged
	}
	b = append(b, s.identifier().String()+" "+state...)
	for _, hash := range s.hashes[1:] {
		b = hex.AppendEncode(append(b, ' '), hash[:])
	}
	return b
}

// readMemory returns the file's content, nil if it is not there.
func readMemory(path string) ([]byte, error) {
	f, _, err := secretfile.Open(path) // it is none, and opened like one
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, explainState(err)
	}
	defer func() { _ = f.Close() }() // only read from: nothing is lost
	const most = maxMemoryLines * 128
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	if err != nil {
		return nil, explainState(err)
	}
	return b, nil
}

// parseMemory reads what [Memory.Sync] has written, and nothing else; of nothing
// at all, that it says nothing.
func parseMemory(b []byte) (list []*seen, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(make([]byte, 0, maxMemoryLine), maxMemoryLine)
	lines.Split(scanLine)
	known, n, ended := map[Identifier]bool{}, 0, false
	for ; lines.Scan(); n++ {
		switch line := lines.Text(); {
		case ended:
			return nil, fmt.Errorf("line %d: something stands behind the end", n+1)
		case n == 0 && line != memoryHead:
			return nil, fmt.Errorf("line 1: want %q", memoryHead)
		case n == 0:
		case line == memoryEnd:
			ended = true
		case n > maxMemoryLines:
			return nil, fmt.Errorf("more than %d lines", maxMemoryLines)
		default:
			s, err := parseSeen(line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
			if known[s.identifier()] {
				return nil, fmt.Errorf("line %d: %s comes a second time", n+1, s.identifier())
			}
			known[s.identifier()] = true
			list = append(list, s)
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("line %d: %w", n+1, lines.Err())
	case !ended:
		return nil, errors.New("it is cut off")
	}
	return list, nil
}

// scanLine is [bufio.ScanLines] for lines that end in LF alone, the last one
// too.
func scanLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errors.New("it is cut off")
	}
	return 0, nil, nil
}

func parseSeen(line string) (*seen, error) {
	words := strings.Split(line, " ")
	if len(words) < 2 || len(words) > MaxChanges+1 {
		return nil, fmt.Errorf("%d words, want 2 to %d", len(words), MaxChanges+1)
	}
	id, err := ParseIdentifier(words[0])
	if err != nil {
		return nil, err
	}
	s := &seen{hashes: [][32]byte{id}}
	switch words[1] {
	case stateOK:
	case stateDiverged:
		s.diverged = true
	default:
		return nil, fmt.Errorf("state %.20q, want %s or %s", words[1], stateOK, stateDiverged)
	}
	for _, word := range words[2:] {
		var hash [32]byte
		if len(word) != hex.EncodedLen(len(hash)) || strings.ToLower(word) != word {
			return nil, errors.New("a hash is not 64 digits and letters a to f")
		}
		if _, err := hex.Decode(hash[:], []byte(word)); err != nil {
			return nil, fmt.Errorf("a hash is not 64 digits and letters a to f: %w", err)
		}
		s.hashes = append(s.hashes, hash)
	}
	if len(s.hashes) == 1 && !s.diverged {
		return nil, errors.New("an identity with one change, which says nothing")
	}
	return s, nil
}

// lockBeside waits for its turn at path, which others share, and returns what
// gives it up. The lock is on a file beside, which stays.
func lockBeside(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explainState(err)
	}
	for until := time.Now().Add(syncWait); ; time.Sleep(syncStep) {
		locked, err := tryLock(f)
		switch {
		case err != nil:
			_ = f.Close()
			return nil, fmt.Errorf("locking %s.lock: %w", path, err)
		case locked:
			return func() { _ = f.Close() }, nil // the lock goes with it
		case time.Now().After(until):
			_ = f.Close()
			return nil, fmt.Errorf("another process has locked %s.lock for %s: stop the one that hangs", path, syncWait)
		}
	}
}

// explainState is explain for a file that nobody makes by hand.
func explainState(err error) error {
	err = plain(err)
	switch {
	case errors.Is(err, secretfile.ErrNotRegular):
		return fmt.Errorf("it is %w", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: make its folder, writable for this process", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: make its folder writable for this process", err)
	}
	return err
}
