// Command 01-node makes a node and ends it.
package main

import (
	"fmt"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	n := node.New(node.Config{})
	fmt.Println("the node runs")

	// Close ends all that runs on the node, and returns when it has.
	_ = n.Close()
	fmt.Println("the node has stopped")
}
