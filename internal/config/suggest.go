package config

import "strings"

// nearest returns the one of names that was probably meant by s, or "".
func nearest(s string, names []string) string {
	best, least := "", min(len(s)/3+1, 5) // a short word has few letters to get wrong
	folded := fold(s)
	for _, name := range names {
		if fold(name) == folded {
			return name
		}
		if d := distance(folded, fold(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// fold makes spellings equal that differ in case and in _, - or nothing between
// words.
func fold(s string) string {
	return strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(s))
}

// distance returns the number of letters to insert, remove, replace or swap
// with their neighbour, to make b out of a; not more than a few hundred.
func distance(a, b string) int {
	const most = 64 // bounds the work; no key is as long
	if len(a) > most || len(b) > most {
		return most
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
