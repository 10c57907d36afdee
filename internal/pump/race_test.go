//go:build race

package pump

// The race detector's sync.Pool drops what is put back at random.
const raceEnabled = true
