//go:build !unix

package authority

// modeBits says that a file's mode says who may use it.
const modeBits = false

// sparseMaps says that mapping more than a file has does not make it longer; here it does.
const sparseMaps = false

// syncDir makes a file's name durable, which folders here do by themselves.
func syncDir(string) error { return nil }
