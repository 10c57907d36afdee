//go:build !unix

package member

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }
