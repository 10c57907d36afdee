//go:build image

package main

import "github.com/spf13/cobra"

// workstationCommands are none in an image.
func workstationCommands() []*cobra.Command { return nil }
