//go:build !image

package main

import "github.com/spf13/cobra"

// workstationCommands are those for a person at a machine of their own: the image,
// which has to be small wherever it is pulled, leaves them out (build tag image).
func workstationCommands() []*cobra.Command {
	return []*cobra.Command{topCommand(), demoCommand(), benchCommand()}
}
