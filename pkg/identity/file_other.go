//go:build !unix

package identity

import (
	"io/fs"
	"os"
)

// openRead opens path for reading.
func openRead(path string) (*os.File, error) { return os.Open(path) }

// checkMode accepts every mode: outside of Unix its bits are made up and say
// nothing about who can read the file. There the folder's access list guards
// it.
func checkMode(fs.FileMode, string) error { return nil }

// chownLike does nothing: a new file has the folder's access list.
func chownLike(*os.File, fs.FileInfo) error { return nil }

// readOnly knows no such error.
func readOnly(error) bool { return false }

// syncFolder does nothing: folders cannot be opened for that.
func syncFolder(string) error { return nil }
