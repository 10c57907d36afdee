//go:build !race

package authority

// raceFactor is how much slower everything may be.
const raceFactor = 1
