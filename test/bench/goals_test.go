//go:build linux

package main

import (
	"io"
	"math"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/bench"
)

// full returns a report in which each path has that figure for each metric of
// each case.
func full(figure func(name, path string, m bench.Metric) float64) *bench.Report {
	r := &bench.Report{}
	for _, g := range groups(nil, bench.DefaultWindows()) {
		for _, c := range g.cases {
			res := &bench.Result{Case: c.Name, Main: c.Main, Metrics: c.Metrics}
			for _, cand := range g.candidates {
				f := bench.Figures{}
				for _, m := range c.Metrics {
					f[m] = figure(c.Name, cand.Name, m)
				}
				res.Series = append(res.Series, bench.Series{Path: cand.Name, Medians: f})
			}
			r.Results = append(r.Results, res)
		}
	}
	return r
}

// TestGoalsAreMeasured: a goal whose case, path or metric is misspelt would
// never be looked at.
func TestGoalsAreMeasured(t *testing.T) {
	r := full(func(string, string, bench.Metric) float64 { return 2 })
	seen := map[string]bool{}
	for _, g := range goals() {
		if math.IsNaN(g.value(r)) {
			t.Errorf("%s: not a number, though everything was measured", g.what)
		}
		if seen[g.what] {
			t.Errorf("%s: twice", g.what)
		}
		seen[g.what] = true
		if g.must == 0 && g.strive == 0 && g.guard == 0 {
			t.Errorf("%s: nothing to reach", g.what)
		}
	}
}

// TestReferenceIsTheFaster: the pair that is compared with is the better one,
// whichever way better is.
func TestReferenceIsTheFaster(t *testing.T) {
	r := full(func(_, path string, _ bench.Metric) float64 {
		return map[string]float64{"own": 10, pathHAProxy: 5, pathStunnel: 20, pathRelay1: 10}[path]
	})
	if got := ratioOf("request-64", bench.Rate, pathRelay1, pair...)(r); got != 0.5 {
		t.Errorf("rate: %v, want 10 ÷ 20", got)
	}
	if got := ratioOf("request-64", bench.P99, pathRelay1, pair...)(r); got != 2 {
		t.Errorf("p99: %v, want 10 ÷ 5", got)
	}
	if got := ratioOf("request-64", bench.Rate, pathRelay1, pathStunnel, "absent")(r); got != 0.5 {
		t.Errorf("with one that was not measured: %v, want 0.5", got)
	}
}

// TestGuards: make bench-check fails when Culvert is much slower than a plain
// proxy, and does not when it is not.
func TestGuards(t *testing.T) {
	speed := func(culvert float64) *bench.Report {
		return full(func(_, path string, m bench.Metric) float64 {
			v := 1.0
			if strings.HasPrefix(path, pathDirectC) {
				v = culvert
			}
			if m.LowerIsBetter() {
				return 1 / v
			}
			return v
		})
	}
	if !writeGoals(io.Discard, speed(0.5)) {
		t.Error("half a plain proxy's speed fails the check")
	}
	if writeGoals(io.Discard, speed(0.05)) {
		t.Error("a twentieth of a plain proxy's speed passes the check")
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{"-rounds 0", "-cases (", "-paths (", "more", "-what"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
