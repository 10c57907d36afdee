package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A Report is all results with what they were measured on.
type Report struct {
	Date    string            `json:"date"`
	Machine string            `json:"machine"`
	Rounds  int               `json:"rounds"`
	Notes   map[string]string `json:"notes"` // of each path: what it is, which version
	Results []*Result         `json:"results"`
}

// JSON returns all of r, rounds and medians, as a text for a file.
func (r *Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// Get returns a path's medians in a case, nil when there are none.
func (r *Report) Get(name, path string) Figures {
	for _, res := range r.Results {
		if res.Case == name {
			return res.Get(path)
		}
	}
	return nil
}

// Write prints a result as a table: a row for each path, with the median of
// each metric and, for the main one, the ratio to base's.
func (r *Result) Write(w io.Writer, base string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := []string{""}
	metrics := r.metrics()
	for _, m := range metrics {
		row = append(row, string(m))
	}
	if base != "" {
		row = append(row, "ratio")
	}
	fmt.Fprintf(w, "%s: %s\n", r.Case, r.What)
	fmt.Fprintln(t, strings.Join(append(row, ""), "\t"))
	reference := r.Get(base)
	for _, s := range r.Series {
		row := []string{s.Path}
		if s.Missing != "" {
			fmt.Fprintln(t, s.Path+"\t-\t")
			continue
		}
		for _, m := range metrics {
			cell := "-"
			if v, ok := s.Medians[m]; ok {
				cell = number(v)
			}
			row = append(row, cell)
		}
		if base != "" {
			row = append(row, ratio(s.Medians[r.Main], reference[r.Main]))
		}
		fmt.Fprintln(t, strings.Join(append(row, ""), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Series {
		if s.Missing != "" {
			fmt.Fprintf(w, "  %s: %s\n", s.Path, s.Missing)
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

// metrics returns those that any path has.
func (r *Result) metrics() (present []Metric) {
	for _, m := range r.Metrics {
		for _, s := range r.Series {
			if _, ok := s.Medians[m]; ok {
				present = append(present, m)
				break
			}
		}
	}
	return present
}

func ratio(v, base float64) string {
	if base == 0 || math.IsNaN(v/base) {
		return "-"
	}
	return strconv.FormatFloat(v/base, 'f', 2, 64)
}

// number prints v with three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}
