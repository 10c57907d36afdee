package console

import (
	"math"
	"regexp"
	"strconv"
	"testing"
)

// colour matches a colour of the style sheet: its name, its value in light and in dark.
var colour = regexp.MustCompile(`--([a-z-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\);`)

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(16) + 0.7152*linear(8) + 0.0722*linear(0)
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (math.Max(x, y) + 0.05) / (math.Min(x, y) + 0.05)
}

// What is read has a contrast of 4.5 on what it stands on, and what has to be seen one
// of 3, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11, level AA).
func TestContrast(t *testing.T) {
	colours := map[string][2]string{}
	for _, m := range colour.FindAllStringSubmatch(files(t)["style.css"], -1) {
		colours[m[1]] = [2]string{m[2], m[3]}
	}
	for _, tt := range []struct {
		front string
		backs []string
		least float64
	}{
		{"text", []string{"back", "surface", "raised", "accent-back"}, 7},
		{"faint", []string{"back", "surface", "raised", "bad-back"}, 4.5},
		{"accent", []string{"back", "surface", "raised", "accent-back"}, 4.5},
		{"bad", []string{"back", "surface", "raised", "bad-back"}, 4.5},
		{"warn", []string{"back", "surface", "raised", "warn-back"}, 4.5},
		{"control", []string{"back", "surface"}, 3},
	} {
		for _, back := range tt.backs {
			for i, scheme := range []string{"light", "dark"} {
				front, behind := colours[tt.front][i], colours[back][i]
				if front == "" || behind == "" {
					t.Fatalf("the style sheet has no colour %s or %s", tt.front, back)
				}
				if got := contrast(t, front, behind); got < tt.least {
					t.Errorf("%s: %s on %s: %.2f, want %.1f", scheme, tt.front, back, got, tt.least)
				}
			}
		}
	}
}
