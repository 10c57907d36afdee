//go:build linux

package main

import (
	"io"

	"github.com/culvert-net/culvert/internal/bench"
)

func writeGoals(io.Writer, *bench.Report) bool { return true }
