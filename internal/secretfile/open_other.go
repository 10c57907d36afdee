//go:build !unix

package secretfile

import "os"

// modeBits says that a file's mode says who may use it.
const modeBits = false

// open opens path for reading.
func open(path string) (*os.File, error) { return os.Open(path) }
