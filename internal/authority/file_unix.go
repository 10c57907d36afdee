//go:build unix

package authority

import (
	"errors"
	"os"
)

// modeBits says that a file's mode says who may use it.
const modeBits = true

// sparseMaps says that mapping more than a file has does not make it longer.
const sparseMaps = true

// syncDir makes a file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
