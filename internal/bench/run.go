package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Series is what one path has measured in a case: a round each.
type Series struct {
	Path    string    `json:"path"`
	Rounds  []Figures `json:"rounds,omitempty"`
	Medians Figures   `json:"medians,omitempty"`
	// Missing says why there is nothing.
	Missing string `json:"missing,omitempty"`
}

// A Result is one case over all paths.
type Result struct {
	Case    string   `json:"case"`
	What    string   `json:"what"`
	Main    Metric   `json:"main"`
	Metrics []Metric `json:"metrics"`
	Series  []Series `json:"series"`
}

// Get returns a path's medians, nil when it has none.
func (r *Result) Get(path string) Figures {
	for _, s := range r.Series {
		if s.Path == path {
			return s.Medians
		}
	}
	return nil
}

// Measure runs a case so many rounds. In each round the paths take turns, so
// that what changes on the machine meanwhile changes for all of them; every
// other round goes backwards. told is called after each turn. A path that fails
// is left out from there on, with the reason; only ctx's end is an error.
func Measure(ctx context.Context, c *Case, paths []*Path, rounds int, told func(path string, f Figures, err error)) (*Result, error) {
	if c.Once {
		rounds = 1
	}
	r := &Result{Case: c.Name, What: c.What, Main: c.Main, Metrics: c.Metrics, Series: make([]Series, len(paths))}
	for i, p := range paths {
		r.Series[i].Path = p.Name
	}
	for round := range rounds {
		for i := range paths {
			if round%2 == 1 {
				i = len(paths) - 1 - i
			}
			s := &r.Series[i]
			if s.Missing != "" {
				continue
			}
			f, err := c.Run(ctx, paths[i])
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			told(paths[i].Name, f, err)
			switch {
			case errors.Is(err, ErrTooMany):
				s.Missing = err.Error()
			case err != nil:
				s.Missing, s.Rounds = err.Error(), nil
			default:
				s.Rounds = append(s.Rounds, f)
			}
			settle(ctx, paths[i])
		}
	}
	for i := range r.Series {
		r.Series[i].Medians = medians(r.Series[i].Rounds)
	}
	return r, nil
}

// Between two turns a path gets settleTime, and as often again as it is still
// busy with what the connections have left behind: some take seconds to close
// thousands. settleMost is for one that is never quiet.
const (
	settleTime = 100 * time.Millisecond
	settleMost = 30 * time.Second
	quietShare = 0.1 // of a processor
)

// settle waits until p's processes are quiet.
func settle(ctx context.Context, p *Path) {
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < settleMost; {
		before := p.usage()
		pause(ctx, settleTime)
		if cost := p.usage().sub(before); cost.cpu.Seconds() <= quietShare*settleTime.Seconds() {
			return
		}
	}
}

// medians returns the median of each figure.
func medians(rounds []Figures) Figures {
	if len(rounds) == 0 {
		return nil
	}
	m := Figures{}
	for metric := range rounds[0] {
		values := make([]float64, 0, len(rounds))
		for _, f := range rounds {
			if v, ok := f[metric]; ok {
				values = append(values, v)
			}
		}
		m[metric] = Median(values)
	}
	return m
}

// Median returns the middle of values, or the mean of the two there; it sorts
// them. There must be one.
func Median(values []float64) float64 {
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// ReadyCase measures the time from start, which starts a path's processes, to
// the first answer over it. stop, which it returns, ends them.
func ReadyCase(start func(ctx context.Context, path string) (p *Path, stop func(), err error)) *Case {
	return &Case{
		Name:    "ready",
		What:    "time from starting a path's processes, all at once, to the first answer",
		Main:    Ready,
		Metrics: []Metric{Ready},
		run: func(ctx context.Context, p *Path) (Figures, error) {
			began := time.Now()
			fresh, stop, err := start(ctx, p.Name)
			if err != nil {
				return nil, err
			}
			defer stop()
			if err := AwaitAnswer(ctx, fresh, readyTime); err != nil {
				return nil, err
			}
			return Figures{Ready: float64(time.Since(began)) / float64(time.Millisecond)}, nil
		},
	}
}

const (
	readyTime  = 20 * time.Second
	readyPause = time.Millisecond
	answerTime = time.Second
)

// AwaitAnswer waits until a request over p is answered.
func AwaitAnswer(ctx context.Context, p *Path, within time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("%s does not answer after %v", p.Name, within))
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = try(ctx, p); last == nil {
			return nil
		}
		pause(ctx, readyPause)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), last)
}

// try makes one request that has a moment.
func try(ctx context.Context, p *Path) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	nc, err := dial(ctx, p, opEcho)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	return request(nc)
}
