//go:build linux

package main

import (
	"context"

	"github.com/culvert-net/culvert/internal/bench"
	"github.com/culvert-net/culvert/internal/bench/rig"
)

// restart returns what starts a candidate's processes anew, beside those that
// run.
func restart(r *rig.Rig, cs []rig.Candidate) func(context.Context, string) (*bench.Path, func(), error) {
	byName := map[string]rig.Candidate{}
	for _, c := range cs {
		byName[c.Name] = c
	}
	return func(ctx context.Context, name string) (*bench.Path, func(), error) {
		return r.Start(ctx, byName[name])
	}
}
