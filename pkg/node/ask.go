package node

import (
	"errors"
	"runtime/debug"

	"github.com/culvert-net/culvert/pkg/code"
)

// errPanicked is what a func of the program's says that panics. What with is not for those
// whom it was asked about.
var errPanicked = errors.New("what is to say who may has panicked")

// ask asks a func of the program's about others, for the place at. One that panics says no:
// what others send, which it has not thought of, shall not end the program.
func (n *Node) ask(at Address, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.panicked(at, p)
			err = errPanicked
		}
	}()
	if err = f(); err != nil {
		_ = err.Error() // which is the program's, too
	}
	return err
}

// panicked tells of a panic with p. It is called while that is recovered from.
func (n *Node) panicked(at Address, p any) {
	if f := n.trace.Panicked; f != nil {
		f(at, p, debug.Stack())
	}
}

// allowed says why what comes from there may not reach the place at.
func (n *Node) allowed(allow func(Origin) error, from Origin, at Address) error {
	if allow == nil {
		return failure(code.WorkerDenied, at, "nothing from outside may reach this address")
	}
	if err := n.ask(at, func() error { return allow(from) }); err != nil {
		return failure(code.WorkerDenied, at, "%s", bounded(err.Error()))
	}
	return nil
}
