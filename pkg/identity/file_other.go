//go:build !unix

package identity

import (
	"io/fs"
	"os"
)

// chownLike does nothing: a new file has the folder's access list.
func chownLike(*os.File, fs.FileInfo) error { return nil }

// readOnly knows no such error.
func readOnly(error) bool { return false }

// syncFolder does nothing: folders cannot be opened for that.
func syncFolder(string) error { return nil }
