//go:build linux

package main

import (
	"context"

	"github.com/culvert-net/culvert/internal/bench"
)

// restart returns what starts a candidate's processes anew, beside those that
// run.
func (w *world) restart(byName map[string]candidate) func(context.Context, string) (*bench.Path, func(), error) {
	return func(ctx context.Context, name string) (*bench.Path, func(), error) {
		return w.start(ctx, byName[name])
	}
}
