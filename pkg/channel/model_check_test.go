package channel

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
)

// An outcome is what a program has seen of a channel.
type outcome struct {
	wrote  error
	read   int
	end    error // of reading
	closed error
}

// TestModel lets rapid invent lives of a channel: whatever becomes of the
// paths, the bytes read are the bytes written, in order, once; the end is a
// clean one only where the other side has ended so, after everything; nothing
// is left.
func TestModel(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); raceEnabled && checks.Value.String() == checks.DefValue {
		_ = checks.Value.Set("40")
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, rt, drawPlan(rt))
		outcomes := w.live()
		w.cutAll()
		w.releaseAll()
		w.runs.Wait()
		w.serving.Wait()
		for i, o := range outcomes {
			if err := w.check(i, o); err != nil {
				rt.Errorf("%s: %v\nthis side: %+v\nthe other: %+v", [2]string{"initiator", "responder"}[i], err, o, outcomes[1-i])
			}
		}
		if used := w.set.Buffers.Used(); used != 0 {
			rt.Errorf("%d bytes are held at the end", used)
		}
		if n := w.table.Detached(); n != 0 {
			rt.Errorf("%d channels are detached at the end", n)
		}
	})
}

// live runs both programs.
func (w *world) live() (outcomes [2]outcome) {
	done := make(chan struct{})
	for i := range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			o := &outcomes[i]
			wrote := make(chan error, 1)
			go func() { wrote <- w.write(i) }()
			limit := math.MaxInt
			if i == w.Closer {
				limit = w.Sides[i].Reads
			}
			o.read, o.end = w.read(i, limit)
			if i == w.Closer {
				o.wrote = <-wrote
				o.closed = w.channels[i].CloseWithReason(w.Code, "as planned")
			} else {
				o.closed = w.channels[i].Close()
				o.wrote = <-wrote
			}
		}()
	}
	<-done
	<-done
	return outcomes
}

// check says what is wrong with what side i has seen.
func (w *world) check(i int, o outcome) error {
	written, closer := w.Sides[1-i].Writes, i == w.Closer
	var lost *LostError
	var ce *CloseError
	switch {
	case w.Crash != "":
		// How far it came is chance, but not what passes for a clean end.
		clean := !closer && o.read == written && w.Code == code.OK
		if o.end != nil && !(o.end == io.EOF && clean) && !errors.As(o.end, &lost) && !(errors.As(o.end, &ce) && ce.Code == w.Code) {
			return fmt.Errorf("read %d of %d bytes, %v", o.read, written, o.end)
		}
		return nil
	case closer && (o.read != w.Sides[i].Reads || o.end != nil):
		return fmt.Errorf("read %d bytes, %v; want %d", o.read, o.end, w.Sides[i].Reads)
	case closer && (o.wrote != nil || o.closed != nil):
		return fmt.Errorf("Write = %v, Close = %v; want nil", o.wrote, o.closed)
	case closer:
		return nil
	case o.read != written:
		return fmt.Errorf("read %d bytes, %v; want %d", o.read, o.end, written)
	case w.Code == code.OK && o.end != io.EOF:
		return fmt.Errorf("the end is %v, want io.EOF", o.end)
	case w.Code != code.OK && (!errors.As(o.end, &ce) || ce.Code != w.Code):
		return fmt.Errorf("the end is %v, want a CloseError of %v", o.end, w.Code)
	case o.closed != nil:
		return fmt.Errorf("Close = %v, want nil", o.closed)
	case o.wrote != nil && w.Sides[w.Closer].Reads == w.Sides[i].Writes:
		return fmt.Errorf("Write = %v, want nil: the other side has read it all", o.wrote)
	}
	return nil
}
