//go:build !linux

package sock

import "net"

// PeerOf returns "unix": this system does not say who has connected.
func PeerOf(net.Conn) string { return "unix" }
