//go:build !unix

package config

import (
	"io/fs"
	"os"
)

// openSecret opens a file for reading.
func openSecret(path string) (*os.File, error) { return os.Open(path) }

// checkSecretMode knows nothing here: the file's access list guards it.
func checkSecretMode(fs.FileMode) error { return nil }
