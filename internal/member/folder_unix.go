//go:build unix

package member

import (
	"errors"
	"fmt"
	"os"
)

// syncFolder makes sure that a file's new name outlives the machine.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("keeping what was written: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("keeping what was written: %w", err)
	}
	return nil
}
