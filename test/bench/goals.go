//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/culvert-net/culvert/internal/bench"
)

// A goal is a ratio or a figure that Culvert is to reach.
type goal struct {
	what         string
	value        func(*bench.Report) float64 // NaN when it was not measured
	must, strive float64                     // strive 0: nothing beyond must
	most         bool                        // the value is to be at most that, not at least
	guard        float64                     // what make bench-check fails at; 0: it does not look
}

// met reports whether v reaches a limit.
func (g goal) met(v, limit float64) bool {
	if g.most {
		return v <= limit
	}
	return v >= limit
}

// at returns a figure, NaN when there is none.
func at(r *bench.Report, name, path string, m bench.Metric) float64 {
	if v, ok := r.Get(name, path)[m]; ok {
		return v
	}
	return math.NaN()
}

// ratioOf returns a goal's value: path's figure over the best of others'.
func ratioOf(name string, m bench.Metric, path string, others ...string) func(*bench.Report) float64 {
	return func(r *bench.Report) float64 {
		best := math.NaN()
		for _, o := range others {
			v := at(r, name, o, m)
			if better := m.LowerIsBetter() == (v < best); math.IsNaN(best) || !math.IsNaN(v) && better {
				best = v
			}
		}
		return at(r, name, path, m) / best
	}
}

func figure(name string, m bench.Metric, path string) func(*bench.Report) float64 {
	return func(r *bench.Report) float64 { return at(r, name, path, m) }
}

// The reference pairs, with and without a plain splice proxy between.
var (
	pair       = []string{pathHAProxy, pathStunnel}
	pairSplice = []string{pathHAProxy + withSplice, pathStunnel + withSplice}
)

func goals() []goal {
	var gs []goal
	for _, name := range []string{"throughput-up-1", "throughput-down-1", "throughput-up-8", "throughput-down-8"} {
		gs = append(gs,
			goal{name + ", 1 relay ÷ pair with splice", ratioOf(name, bench.Throughput, pathRelay1, pairSplice...), 1.2, 0, false, 0},
			goal{name + ", 1 relay ÷ pair", ratioOf(name, bench.Throughput, pathRelay1, pair...), 0, 1, false, 0},
			goal{name + ", 1 relay ÷ ssh -L", ratioOf(name, bench.Throughput, pathRelay1, pathSSH), 1, 1.2, false, 0},
			goal{name + ", 1 relay ÷ spiped", ratioOf(name, bench.Throughput, pathRelay1, pathSpiped), 3, 0, false, 0},
			goal{name + ", 2 relays ÷ 1 relay", ratioOf(name, bench.Throughput, pathRelay2, pathRelay1), 0.85, 0, false, 0.6},
			goal{name + ", relay's CPU ÷ splice's in its place", ratioOf(name, bench.PartCPU, pathRelay1, pathOwnSplice), 1.15, 0, true, 2},
		)
	}
	gs = append(gs,
		goal{"request-64, rate, 1 relay ÷ pair with splice", ratioOf("request-64", bench.Rate, pathRelay1, pairSplice...), 1.3, 1.6, false, 0},
		goal{"request-64, p99, 1 relay ÷ pair with splice", ratioOf("request-64", bench.P99, pathRelay1, pairSplice...), 1, 0, true, 0},
		goal{"request-1, p50, 1 relay ÷ pair with splice", ratioOf("request-1", bench.P50, pathRelay1, pairSplice...), 1.5, 1, true, 0},
		goal{"connect, rate, 1 relay ÷ pair with splice", ratioOf("connect", bench.Rate, pathRelay1, pairSplice...), 2.5, 4, false, 0},
		goal{"connect, rate, 1 relay ÷ ssh -L", ratioOf("connect", bench.Rate, pathRelay1, pathSSH), 0, 1, false, 0},
		goal{"beside-bulk, p99, 1 relay ÷ pair", ratioOf("beside-bulk", bench.P99, pathRelay1, pair...), 1.5, 1, true, 0},
		goal{"memory-idle, kB each", figure("memory-idle", bench.Memory, pathDirectC), 30, 15, true, 0},
		goal{"CPU of a request among 5,000 streams ÷ among 10", func(r *bench.Report) float64 {
			return at(r, "among-5000", pathRelay1, bench.CPUEach) / at(r, "among-10", pathRelay1, bench.CPUEach)
		}, 1.2, 0, true, 0},
		// Against plain splice proxies only, and with much room: what fails these
		// is no noise of the machine.
		goal{"throughput-down-1, 1 relay ÷ splice", ratioOf("throughput-down-1", bench.Throughput, pathRelay1, pathSplice), 0, 0, false, 0.12},
		goal{"throughput-up-8, 1 relay ÷ splice", ratioOf("throughput-up-8", bench.Throughput, pathRelay1, pathSplice), 0, 0, false, 0.12},
		goal{"request-64, rate, 1 relay ÷ splice", ratioOf("request-64", bench.Rate, pathRelay1, pathSplice), 0, 0, false, 0.2},
		goal{"connect, rate, 1 relay ÷ splice", ratioOf("connect", bench.Rate, pathRelay1, pathSplice), 0, 0, false, 0.15},
	)
	for _, rtt := range lineTimes {
		gs = append(gs, lineGoals(lineName(rtt), float64(rtt.Microseconds()))...)
	}
	return gs
}

func lineGoals(name string, rtt float64) (gs []goal) {
	for _, way := range []string{"up", "down"} {
		bulk, beside := name+"-throughput-"+way+"-1", name+"-beside-"+way
		gs = append(gs,
			goal{bulk + ", 1 relay ÷ plain TCP", ratioOf(bulk, bench.Throughput, pathRelay1, pathLine), 0.9, 0.97, false, 0},
			goal{beside + ", p99, 1 relay ÷ round trip", func(r *bench.Report) float64 {
				return at(r, beside, pathRelay1, bench.P99) / rtt
			}, 2, 1.2, true, 0},
		)
	}
	return gs
}

// writeGoals prints how far each goal that was measured is reached, and reports
// whether none of its guards has failed.
func writeGoals(out io.Writer, r *bench.Report) (held bool) {
	held = true
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range goals() {
		v := g.value(r)
		if math.IsNaN(v) {
			continue
		}
		var says []string
		for _, limit := range []struct {
			name string
			at   float64
		}{{"must", g.must}, {"strive", g.strive}, {"guard", g.guard}} {
			if limit.at != 0 {
				says = append(says, g.verdict(v, limit.name, limit.at))
			}
		}
		held = held && (g.guard == 0 || g.met(v, g.guard))
		fmt.Fprintf(t, "%s\t%.2f\t%s\n", g.what, v, strings.Join(says, ", "))
	}
	_ = t.Flush() // as good as out is
	return held
}

func (g goal) verdict(v float64, name string, limit float64) string {
	sign, says := "≥", "met"
	if g.most {
		sign = "≤"
	}
	if !g.met(v, limit) {
		says = "MISSED"
	}
	return fmt.Sprintf("%s %s %g: %s", name, sign, limit, says)
}
